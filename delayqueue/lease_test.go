package delayqueue

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A lease renews itself while its handler runs, so that a long job runs once.
func TestBubbleLeaseRenews(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{})
		s := newSeen()
		for range 2 { // a second worker waits for the lease to end
			work(t, q, func(ctx context.Context, d *Delivery) error {
				time.Sleep(40 * time.Minute)
				require.NoError(t, ctx.Err())
				return s.handle(ctx, d)
			}, RunOptions{Lease: 5 * time.Second})
		}
		_, err := q.Add(t.Context(), Job{ID: "long"})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, 1, s.count("long"))
		require.Equal(t, Finished, state(t, q, "long").orGone())
		require.Zero(t, q.Stats().Lost)
	})
}

// A renewal that comes to Redis behind the end of its job finds no lease, and none was
// lost: the answer to the end is only on its way.
func TestBubbleRenewalMeetsTheEnd(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		q := open(t, b.Client(faults.Options), Options{})
		work(t, q, func(context.Context, *Delivery) error { return nil }, RunOptions{Lease: 3 * time.Second})
		for i := range uint64(2) { // the first one loads the scripts
			_, err := q.Add(t.Context(), Job{ID: fmt.Sprint(i)})
			require.NoError(t, err)
			time.Sleep(time.Minute)
			require.Equal(t, i+1, q.Stats().Succeeded)
			faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: hashOf(readLua + "\n" + settleLua), Delay: 2 * time.Second})
		}
		require.Equal(t, 1, faults.Fired(redistest.DelayReply))
		require.Zero(t, q.Stats().Lost)
	})
}

// An end that cannot be told while the lease lasts is a lost lease, counted once: the job
// runs again.
func TestBubbleEndThatIsNeverTold(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		q := open(t, b.Client(faults.Options), Options{})
		runs := 0
		work(t, q, func(context.Context, *Delivery) error {
			if runs++; runs == 1 {
				faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
				faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
			}
			return nil
		}, RunOptions{Lease: 3 * time.Second})
		_, err := q.Add(t.Context(), Job{ID: "a"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, uint64(1), q.Stats().Lost)
		faults.Clear()
		time.Sleep(time.Minute)
		require.Equal(t, 2, runs)
		require.Equal(t, uint64(1), q.Stats().Lost)
		require.Equal(t, uint64(1), q.Stats().Succeeded)
	})
}

// One reply that is lost, or late, costs no lease, however short: the next attempt does not
// wait for go-redis to give the first one up.
func TestBubbleLeaseSurvivesALostReply(t *testing.T) {
	t.Parallel()
	for _, fault := range []redistest.Rule{
		{Do: redistest.LoseReply}, {Do: redistest.DelayReply, Delay: 2 * time.Second}, {Do: redistest.CutAfter},
	} {
		for _, lease := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second} {
			t.Run(fmt.Sprint(fault.Do, lease), func(t *testing.T) {
				redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
					var faults redistest.Faults
					q := open(t, b.Client(faults.Options), Options{})
					s := newSeen()
					work(t, q, func(ctx context.Context, d *Delivery) error {
						s.note(d)
						time.Sleep(10 * lease)
						return ctx.Err()
					}, RunOptions{Lease: lease})
					for i := range 2 { // the first one loads the scripts
						_, err := q.Add(t.Context(), Job{ID: fmt.Sprint(i)})
						require.NoError(t, err)
						time.Sleep(time.Second)
						fault.Match, fault.Skip = hashOf(readLua+"\n"+extendLua), 1
						faults.Add(fault)
						time.Sleep(12 * lease)
						require.Equal(t, 1, s.count(fmt.Sprint(i)))
						require.Equal(t, Finished, state(t, q, fmt.Sprint(i)).orGone())
					}
					require.Equal(t, 2, faults.Fired(fault.Do))
					require.Zero(t, q.Stats().Lost)
				})
			})
		}
	}
}

// Renewals that hang do not pile up.
func TestBubbleRenewalsUnderWay(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		q := open(t, b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = time.Minute }), Options{MaxCrashes: 1000})
		end := make(chan struct{})
		defer close(end)
		work(t, q, func(ctx context.Context, _ *Delivery) error {
			select {
			case <-ctx.Done():
			case <-end:
			}
			return ctx.Err()
		}, RunOptions{Lease: time.Second})
		_, err := q.Add(t.Context(), Job{})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.Zero(t, q.Stats().Lost)
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: hashOf(readLua + "\n" + extendLua), Times: -1})
		time.Sleep(50 * time.Second)
		require.Equal(t, maxRenewals, faults.Fired(redistest.LoseReply))
		require.NotZero(t, q.Stats().Lost)
		faults.Clear()
		time.Sleep(2 * time.Minute)
		lost := q.Stats().Lost
		time.Sleep(time.Minute)
		require.Equal(t, lost, q.Stats().Lost, "and go on")
	})
}

// The answer to an earlier attempt takes nothing from that to a later one.
func TestLeaseIsNotShortened(t *testing.T) {
	var d Delivery
	first := time.Now()
	for _, sent := range []time.Time{first, first.Add(2 * time.Second), first.Add(time.Second)} {
		d.leased(sent, 10*time.Second)
	}
	require.Greater(t, d.valid.Sub(first), 11*time.Second)
	require.Greater(t, d.renew.Sub(first), 5*time.Second)
}

// As many jobs as a worker may have are renewed, also where all are in one shard.
func TestBubbleManyLeasesRenew(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		const jobs = 6 * maxMany
		q := open(t, b.Client(), Options{})
		s := newSeen()
		work(t, q, func(ctx context.Context, d *Delivery) error {
			s.note(d)
			time.Sleep(2 * time.Minute)
			return ctx.Err()
		}, RunOptions{Concurrency: jobs})
		for range jobs / maxMany {
			_, err := q.AddMany(t.Context(), make([]Job, maxMany))
			require.NoError(t, err)
		}
		time.Sleep(3 * time.Minute)
		require.Zero(t, q.Stats().Lost)
		require.Len(t, s.all(), jobs)
		require.EqualValues(t, jobs, q.Stats().Succeeded)
	})
}
