package delayqueue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxRenewals bounds the renewals of one shard that are under way. What is due beyond
// that waits for a later look.
const maxRenewals = 4

// leased notes that a lease of d was asked for at sent, and granted. Until valid
// nobody else can have the job, even if the clocks run differently by a percent. An
// answer that a later one overtook says nothing new.
func (d *Delivery) leased(sent time.Time, lease time.Duration) {
	if valid := sent.Add(lease - lease/100 - 2*time.Millisecond); valid.After(d.valid) {
		d.valid, d.renew = valid, sent.Add(lease/3)
	}
}

// keepLeases renews the leases of running handlers, and ends the contexts of those
// whose lease cannot be renewed or that ran for too long, until ctx ends. A renewal is
// not waited for: one whose reply is lost must not keep the next attempt from Redis.
func (r *runner) keepLeases(ctx context.Context) {
	every := max(min(r.opts.Lease, r.opts.MaxRun)/8, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var flights sync.WaitGroup
	defer flights.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, ds := range r.due(every) {
			if len(ds) > 0 {
				flights.Go(func() { r.renew(ctx, &r.q.shards[i], ds) })
			}
		}
	}
}

// due returns, by shard, the deliveries whose leases are to be renewed. What could be
// lost before the next look is lost now.
func (r *runner) due(every time.Duration) [][]*Delivery {
	out := make([][]*Delivery, len(r.q.shards))
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range r.leases {
		i := d.shard.index
		switch {
		case !now.Add(every).Before(d.valid):
			if d.ended == nil && !d.telling { // else settle counts it
				r.q.stats.lost.Add(1)
			}
			d.finish(ErrLeaseLost)
		case now.Sub(d.started) >= r.opts.MaxRun:
			d.finish(ErrMaxRun)
		case !now.Before(d.renew) && r.renewing[i] < maxRenewals:
			d.renew = now.Add(r.opts.Lease / 10) // unless an answer comes, the next look tries again
			out[i] = append(out[i], d)
		}
	}
	for i, ds := range out {
		if len(ds) > 0 {
			r.renewing[i]++
		}
	}
	return out
}

// renew renews the leases of deliveries that due returned. What fails is left to the
// next attempt.
func (r *runner) renew(ctx context.Context, s *shard, ds []*Delivery) {
	within, cancel := context.WithTimeout(ctx, r.opts.Lease) // later it helps nobody
	defer cancel()
	for chunk := range slices.Chunk(ds, maxMany) {
		sent := time.Now()
		held, err := r.q.extend(within, s, chunk, r.opts.Lease)
		if err == nil {
			r.renewed(chunk, held, sent)
			continue
		}
		if ctx.Err() == nil {
			r.troubled("renew leases", err)
		}
		if within.Err() != nil {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewing[s.index]--
}

// renewed takes in the answer to a renewal that was sent then.
func (r *runner) renewed(ds []*Delivery, held []bool, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, d := range ds {
		if _, running := r.leases[d]; !running {
			continue // settled meanwhile
		}
		switch {
		case held[i]:
			d.leased(sent, r.opts.Lease)
		case d.telling: // the lease ended with the job, or was lost: the answer to that tells
		default:
			d.valid = sent
			if d.ended == nil {
				r.q.stats.lost.Add(1)
			}
			d.finish(ErrLeaseLost)
		}
	}
}

// lost tells whether another worker may have the job by now.
func (r *runner) lost(d *Delivery) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().After(d.valid)
}
