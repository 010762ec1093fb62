package delayqueue

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A lease renews itself while its handler runs, so that a long job runs once.
func TestBubbleLeaseRenews(t *testing.T) {
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

// As many jobs as a worker may have are renewed, also where all are in one shard.
func TestBubbleManyLeasesRenew(t *testing.T) {
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
		require.Len(t, s.all(), jobs)
		require.Zero(t, q.Stats().Lost)
		require.EqualValues(t, jobs, q.Stats().Succeeded)
	})
}
