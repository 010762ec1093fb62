package delayqueue

import (
	"context"
	"slices"
	"time"
)

// leased notes that a lease of d was asked for at sent, and granted. Until valid
// nobody else can have the job, even if the clocks run differently by a percent.
func (d *Delivery) leased(sent time.Time, lease time.Duration) {
	d.renew = sent.Add(lease / 3)
	d.valid = sent.Add(lease - lease/100 - 2*time.Millisecond)
}

// keepLeases renews the leases of running handlers, and ends the contexts of those
// whose lease cannot be renewed or that ran for too long, until ctx ends.
func (r *runner) keepLeases(ctx context.Context) {
	every := max(min(r.opts.Lease, r.opts.MaxRun)/8, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	busy := make([]chan struct{}, len(r.q.shards)) // a renewal is under way
	for {
		select {
		case <-ctx.Done():
			for _, b := range busy {
				if b != nil {
					<-b
				}
			}
			return
		case <-tick.C:
		}
		for i, ds := range r.due(every) {
			if b := busy[i]; b != nil {
				select {
				case <-b:
					busy[i] = nil
				default:
					continue
				}
			}
			if len(ds) > 0 {
				done := make(chan struct{})
				busy[i] = done
				go func() {
					defer close(done)
					r.renew(ctx, &r.q.shards[i], ds)
				}()
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
		switch {
		case !now.Add(every).Before(d.valid):
			if d.ended == nil && !d.telling { // else settle counts it
				r.q.stats.lost.Add(1)
			}
			d.finish(ErrLeaseLost)
		case now.Sub(d.started) >= r.opts.MaxRun:
			d.finish(ErrMaxRun)
		case !now.Before(d.renew):
			out[d.shard.index] = append(out[d.shard.index], d)
		}
	}
	return out
}

// renew renews the leases of deliveries that due returned. What fails is left to the
// next attempt.
func (r *runner) renew(ctx context.Context, s *shard, ds []*Delivery) {
	for chunk := range slices.Chunk(ds, maxMany) {
		sent := time.Now()
		held, err := r.q.extend(ctx, s, chunk, r.opts.Lease)
		if err == nil {
			r.renewed(chunk, held, sent)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		r.troubled("renew leases", err)
	}
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
