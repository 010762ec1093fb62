package delayqueue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Long delays, to the millisecond, in virtual time.
func TestBubbleTimeouts(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{})
		start := time.Now()
		at := map[string]time.Duration{}
		done := make(chan struct{})
		stop := work(t, q, func(_ context.Context, d *Delivery) error {
			at[d.ID] = time.Since(start)
			require.False(t, time.Now().Before(d.Due), "early")
			done <- struct{}{}
			return nil
		}, RunOptions{MaxSleep: time.Minute}) // a week has 604,800 seconds
		want := map[string]time.Duration{
			"30m": 30 * time.Minute, "7d": 7 * 24 * time.Hour, "1ms": time.Millisecond, "1500us": 1500 * time.Microsecond, "now": 0,
		}
		for id, d := range want {
			_, err := q.Add(t.Context(), Job{ID: id, Delay: d})
			require.NoError(t, err)
		}
		for range want {
			<-done
		}
		stop()
		for id, d := range want {
			require.GreaterOrEqual(t, at[id], d, id)
			require.Less(t, at[id], d+3*time.Millisecond, id)
		}
		st := q.Stats()
		require.Zero(t, st.LostHints)
		require.Zero(t, st.Failures)
		require.Less(t, st.Claims, uint64(7*24*60+60), "one a minute when idle")
	})
}

// Two workers; one hangs with its connection cut. Its job runs elsewhere within a second
// of the end of the lease; its handler is told before; its ack is refused.
func TestBubbleLeaseOfACutWorker(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		opts := Options{Prefix: "p"}
		cut := open(t, b.Client(faults.Options), opts)
		q := open(t, b.Client(), opts)
		const lease = 20 * time.Second
		var lostAt, againAt time.Time
		var lostTo error
		returned := make(chan struct{})
		start := time.Now()
		cutCtx, stopCut := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		running := make(chan struct{})
		go func() {
			ended <- cut.Run(cutCtx, func(ctx context.Context, d *Delivery) error {
				close(running)
				<-ctx.Done()
				lostAt = time.Now()
				lostTo = context.Cause(ctx)
				<-returned
				return nil
			}, RunOptions{Lease: lease})
		}()
		synctest.Wait()
		_, err := q.Add(t.Context(), Job{ID: "a"})
		require.NoError(t, err)
		<-running
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		cutAt := time.Now()
		s := newSeen()
		stop := work(t, q, func(ctx context.Context, d *Delivery) error {
			againAt = time.Now()
			require.Equal(t, 1, d.Crashes)
			require.Equal(t, 1, d.Attempt)
			return s.handle(ctx, d)
		}, RunOptions{Lease: lease})
		<-s.ch
		synctest.Wait()
		require.False(t, lostAt.IsZero(), "the handler was told")
		require.ErrorIs(t, lostTo, ErrLeaseLost)
		require.False(t, lostAt.After(againAt), "and before the job ran again")
		require.LessOrEqual(t, againAt.Sub(cutAt), lease+time.Second)
		require.Greater(t, againAt.Sub(start), lease*9/10)

		// The network is back, and the ack of the first worker comes: too late.
		faults.Clear()
		close(returned)
		time.Sleep(10 * time.Second)
		stopCut()
		require.NoError(t, <-ended)
		stop()
		require.Equal(t, uint64(1), cut.Stats().Lost)
		require.Zero(t, cut.Stats().Succeeded)
		require.Equal(t, uint64(1), q.Stats().Succeeded)
	})
}

// orGone takes a job that is no more known for one that finished.
func (s State) orGone() State {
	if s == 0 {
		return Finished
	}
	return s
}

func TestBubbleMaxRun(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{MaxAttempts: 2})
		var ran []time.Duration
		work(t, q, func(ctx context.Context, d *Delivery) error {
			start := time.Now()
			<-ctx.Done()
			ran = append(ran, time.Since(start))
			require.ErrorIs(t, context.Cause(ctx), ErrMaxRun)
			return context.Cause(ctx)
		}, RunOptions{MaxRun: 40 * time.Second})
		_, err := q.Add(t.Context(), Job{ID: "a"})
		require.NoError(t, err)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		require.Len(t, ran, 2)
		require.InDelta(t, 40, ran[0].Seconds(), 5)
		i, err := q.Get(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, Dead, i.State)
		require.Equal(t, ErrMaxRun.Error(), i.Error)
		require.Equal(t, 0, i.Crashes)
	})
}

// Exactly MaxCrashes workers die of a poison job; failures do not count as crashes.
func TestBubblePoison(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{MaxCrashes: 4})
		s := &q.shards[0]
		_, err := q.Add(t.Context(), Job{ID: "poison"})
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		died := 0
		for range 20 {
			c := newClaimer(q, s, newToken(), 10*time.Second)
			got, err := c.claim(t.Context(), 3)
			require.NoError(t, err)
			for _, d := range got.jobs {
				require.Equal(t, died, d.Crashes)
				if d.Crashes == 2 && d.Attempt == 1 { // a failure in between changes nothing
					code, err := q.settle(t.Context(), s, &settleOp{id: d.ID, token: d.token, verb: "R", text: "no"})
					require.NoError(t, err)
					require.Zero(t, code)
					continue
				}
				died++ // it is not heard of again
			}
			time.Sleep(11 * time.Second)
		}
		require.Equal(t, 4, died)
		dead, _, err := q.Dead(t.Context(), "", 10)
		require.NoError(t, err)
		require.Len(t, dead, 1)
		require.Equal(t, 4, dead[0].Crashes)
		require.Equal(t, 1, dead[0].Attempts)
		require.Contains(t, dead[0].Error, "worker died")
	})
}

func TestBubbleDeadLettersExpire(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		q := open(t, rdb, Options{DeadRetention: time.Hour})
		work(t, q, func(context.Context, *Delivery) error { return Discard(errors.New("no")) }, RunOptions{})
		for i := range 300 {
			_, err := q.Add(t.Context(), Job{ID: fmt.Sprint(i)})
			require.NoError(t, err)
		}
		time.Sleep(59 * time.Minute)
		st, err := q.Inspect(t.Context())
		require.NoError(t, err)
		require.Equal(t, int64(300), st.Dead)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		st, err = q.Inspect(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Dead)
		requireNoJob(t, rdb, q)
	})
}

// requireNoJob demands that nothing of any job is left but verdicts and markers.
func requireNoJob(t testing.TB, rdb redis.UniversalClient, q *Queue) {
	t.Helper()
	for _, s := range q.shards {
		for _, kind := range []string{"due", "run", "jobs", "state", "dead", "unique"} {
			n, err := rdb.Exists(t.Context(), s.space.Key(kind)).Result()
			require.NoError(t, err)
			require.Zero(t, n, "%s is left", s.space.Key(kind))
		}
	}
}

// Verdicts last for a window at least and three at most, and go without anyone's help.
func TestBubbleVerdictsExpire(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{})
		for range 5 {
			_, err := q.Add(t.Context(), Job{ID: "a", Delay: time.Hour})
			require.NoError(t, err)
			require.NoError(t, q.Cancel(t.Context(), "a"))
			time.Sleep(59 * time.Second)
			require.ErrorIs(t, errOf(q.Add(t.Context(), Job{ID: "a"})), ErrCancelled)
			time.Sleep(62 * time.Second)
			require.ErrorIs(t, q.Cancel(t.Context(), "a"), ErrNotFound)
		}
		time.Sleep(3 * time.Minute)
		require.Equal(t, []string{b.Mini.Keys()[0]}, b.Mini.Keys(), "only the number of shards")
	})
}

func errOf(_ string, err error) error { return err }

// Run drains: handlers finish, or are told to stop and their jobs go back uncounted.
func TestBubbleDrain(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{})
		for _, id := range []string{"quick", "slow"} {
			_, err := q.Add(t.Context(), Job{ID: id})
			require.NoError(t, err)
		}
		var finished atomic.Int32
		h := func(ctx context.Context, d *Delivery) error {
			select {
			case <-time.After(map[string]time.Duration{"quick": 5 * time.Second, "slow": time.Hour}[d.ID]):
				finished.Add(1)
				return nil
			case <-ctx.Done():
				require.ErrorIs(t, context.Cause(ctx), ErrDraining)
				return ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		err := q.Run(ctx, h, RunOptions{Drain: 10 * time.Second})
		require.ErrorIs(t, err, ErrDraining)
		require.InDelta(t, 12, time.Since(start).Seconds(), 0.1)
		require.EqualValues(t, 1, finished.Load())
		i, err := q.Get(t.Context(), "slow")
		require.NoError(t, err)
		require.Equal(t, Waiting, i.State, "at once for another worker")
		require.Zero(t, i.Attempts+i.Crashes)
		require.Equal(t, uint64(1), q.Stats().Returned)
	})
}

// Redis is away for less than the lease: the ack waits for it, and the job ran once.
func TestBubbleAckWaitsForRedis(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		q := open(t, b.Client(faults.Options), Options{})
		s := newSeen()
		work(t, q, func(ctx context.Context, d *Delivery) error {
			faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
			faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
			return s.handle(ctx, d)
		}, RunOptions{})
		_, err := q.Add(t.Context(), Job{ID: "a"})
		require.NoError(t, err)
		<-s.ch
		time.Sleep(12 * time.Second)
		faults.Clear()
		time.Sleep(2 * time.Second)
		require.Equal(t, Finished, state(t, q, "a"))
		time.Sleep(time.Minute)
		require.Equal(t, 1, s.count("a"))
		require.NotZero(t, q.Stats().Failures)
	})
}

// Without any wake-up a job is late by MaxSleep at most, and it is counted.
func TestBubbleLostHint(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "subscribe", Times: -1})
		opts := Options{Prefix: "p"}
		deaf, q := open(t, b.Client(faults.Options), opts), open(t, b.Client(), opts)
		s := newSeen()
		stop := work(t, deaf, s.handle, RunOptions{})
		time.Sleep(10*time.Second + 300*time.Millisecond)
		_, err := q.Add(t.Context(), Job{ID: "a"})
		require.NoError(t, err)
		start := time.Now()
		<-s.ch
		require.Greater(t, time.Since(start), lateHint)
		require.LessOrEqual(t, time.Since(start), time.Second)
		stop()
		require.Equal(t, uint64(1), deaf.Stats().LostHints)

		// Later ones, whose time the worker knows, are no hints lost.
		for i := range 5 {
			_, err := q.Add(t.Context(), Job{Delay: time.Duration(i) * 2500 * time.Millisecond})
			require.NoError(t, err)
		}
		stop = work(t, deaf, s.handle, RunOptions{})
		for range 5 {
			<-s.ch
		}
		stop()
		require.Equal(t, uint64(1), deaf.Stats().LostHints)
		time.Sleep(time.Second) // go-redis pauses between its attempts to subscribe
	})
}

// A job whose hint came while there was no free slot is late, but no hint was lost.
func TestBubbleHintWithoutASlot(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{Shards: 2})
		s := newSeen()
		work(t, q, func(ctx context.Context, d *Delivery) error {
			time.Sleep(5 * time.Second)
			return s.handle(ctx, d)
		}, RunOptions{Concurrency: 1})
		slow, late := "slow", "late"
		for i := 0; q.shardOf(late) == q.shardOf(slow); i++ {
			late = fmt.Sprint("late", i)
		}
		for _, id := range []string{slow, late} {
			time.Sleep(2*time.Second + 300*time.Millisecond) // who sleeps has slept for as long as it may
			_, err := q.Add(t.Context(), Job{ID: id})
			require.NoError(t, err)
		}
		require.Equal(t, slow, s.next(t))
		require.Equal(t, late, s.next(t))
		require.Zero(t, q.Stats().LostHints)
	})
}

// Idle workers ask once a second and shard; a worker that hears hints starts at once.
func TestBubbleIdle(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{Shards: 4})
		s := newSeen()
		work(t, q, s.handle, RunOptions{})
		_, err := q.Add(t.Context(), Job{Delay: 24 * time.Hour})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		before := q.Stats().Claims
		time.Sleep(100 * time.Second)
		require.LessOrEqual(t, q.Stats().Claims-before, uint64(4*101))
		for range 20 {
			time.Sleep(333 * time.Millisecond)
			start := time.Now()
			_, err := q.Add(t.Context(), Job{})
			require.NoError(t, err)
			<-s.ch
			require.Less(t, time.Since(start), 3*time.Millisecond)
		}
		require.Zero(t, q.Stats().LostHints)
	})
}

// A paused queue starts nothing, does not spin, and goes on at once.
func TestBubblePause(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{Shards: 2})
		s := newSeen()
		work(t, q, s.handle, RunOptions{})
		require.NoError(t, q.Pause(t.Context()))
		for range 10 {
			_, err := q.Add(t.Context(), Job{})
			require.NoError(t, err)
		}
		time.Sleep(time.Second)
		before := q.Stats().Claims
		time.Sleep(100 * time.Second)
		require.Empty(t, s.ch)
		require.LessOrEqual(t, q.Stats().Claims-before, uint64(202))
		st, err := q.Inspect(t.Context())
		require.NoError(t, err)
		require.True(t, st.Paused)
		require.Equal(t, int64(10), st.Late)
		start := time.Now()
		require.NoError(t, q.Resume(t.Context()))
		for range 10 {
			<-s.ch
		}
		require.Less(t, time.Since(start), 10*time.Millisecond)
	})
}
