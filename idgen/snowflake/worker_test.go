package snowflake

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Without Redis, ids are made until the local end of the lease and not one later;
// when it is back they go on, under the same worker id if nobody took it.
func TestOutage(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		w := leaseOf(t, b.Client(faults.Options), Options{TTL: 10 * time.Second})
		s := flakeOf(t, virtual, w)
		time.Sleep(time.Minute)
		id := w.ID()
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		left := s.Stats().Left
		require.Greater(t, left, 6*time.Second)
		for end := time.Now().Add(left); time.Now().Before(end); time.Sleep(time.Millisecond) {
			_, ok := s.TryNext()
			require.True(t, ok)
		}
		for range 20 {
			_, ok := s.TryNext()
			require.False(t, ok)
			time.Sleep(time.Second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Next(ctx)
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrUnknown)
		faults.Clear()
		next(t, s)
		require.Equal(t, id, w.ID())
		require.Zero(t, s.Stats().Lost)
	})
}

// A lease that somebody else took, or that Redis forgot, is replaced by another, and
// ids go on increasing.
func TestLostLease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		var out strings.Builder
		w := leaseOf(t, rdb, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		s := flakeOf(t, virtual, w)
		last := int64(0)
		for i := range 5 {
			time.Sleep(7 * time.Second)
			id := next(t, s)
			at, _, _ := virtual.Split(id)
			before, _, _ := virtual.Split(last)
			require.Greater(t, at, before)
			last = id
			require.NoError(t, rdb.Del(t.Context(), w.key).Err())
			w.hurry()
			time.Sleep(time.Second)
			require.EqualValues(t, i+1, s.Stats().Lost)
		}
		require.Contains(t, out.String(), "lost")
	})
}

// A process that was suspended while another one had its worker id takes it again above
// that one's ids, and reads its clock, which went on meanwhile: ids do not wait.
func TestLostLeaseReadsClock(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		opts := Options{Workers: 1}
		w := leaseOf(t, b.Client(), opts)
		s := flakeOf(t, virtual, w)
		time.Sleep(5 * time.Second)
		next(t, s)

		const step = 40 * time.Second // of wall clocks, not of the monotonic one
		b.Mini.SetTime(time.Now().Add(step))
		other := leaseOf(t, b.Client(), opts)
		other.setClock(step.Microseconds())
		used := next(t, flakeOf(t, virtual, other))
		require.NoError(t, other.Close(t.Context()))

		w.skew.Store(step.Microseconds())
		w.hurry()
		time.Sleep(time.Second)
		require.EqualValues(t, 1, s.Stats().Lost)
		began := time.Now()
		require.Greater(t, next(t, s), used)
		require.Zero(t, time.Since(began))
	})
}

// Each script is sent, executed, and its reply lost: what it does it does once.
func TestLostReplies(t *testing.T) {
	for _, fault := range []redistest.Fault{redistest.LoseReply, redistest.CutAfter} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			var faults redistest.Faults
			rdb := b.Client(faults.Options)
			lose := func(match string) {
				faults.Add(redistest.Rule{Do: fault, Match: match})
			}
			warm := leaseOf(t, rdb, Options{Name: "warm"})
			require.NoError(t, warm.Close(t.Context()))

			lose("evalsha")
			w := leaseOf(t, rdb, Options{})
			require.Equal(t, 1, faults.Fired(fault))
			require.EqualValues(t, 1, rdb.HLen(t.Context(), w.key).Val(), "one worker id")

			s := flakeOf(t, virtual, w)
			time.Sleep(time.Second)
			next(t, s)
			w.hurry()
			time.Sleep(time.Second) // the script is loaded
			lose("evalsha")
			w.hurry()
			time.Sleep(10 * time.Second)
			require.Equal(t, 2, faults.Fired(fault))
			require.Zero(t, s.Stats().Failures)
			require.Zero(t, s.Stats().Lost)
			last := next(t, s)

			lose("evalsha")
			require.NoError(t, w.Close(t.Context()))
			require.Equal(t, 3, faults.Fired(fault))
			slot := rdb.HGet(t.Context(), w.key, fmt.Sprint(w.ID())).Val()
			require.Regexp(t, `^- 0 \d+ \d+$`, slot)
			at, _, _ := virtual.Split(last)
			require.Contains(t, slot, fmt.Sprint(at.UnixMicro()), "the rest of the reserve is given back")
		})
	}
}

// More worker ids than one run of the script looks at, all but one taken.
func TestManyWorkers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := Options{Prefix: redistest.Prefix(t), Workers: 1000}
		w := leaseOf(t, rdb, opts)
		far := time.Now().Add(time.Hour).UnixMilli()
		for i := range opts.Workers {
			if i != 777 {
				require.NoError(t, rdb.HSet(t.Context(), w.key, i, fmt.Sprintf("other %d %d 0", far, far*1000)).Err())
			}
		}
		require.NoError(t, rdb.HDel(t.Context(), w.key, "777").Err())
		require.Equal(t, 777, leaseOf(t, rdb, opts).ID())
		_, err := LeaseWorker(t.Context(), rdb, opts)
		require.ErrorIs(t, err, ErrNoWorker)
	})
}

// A Close that runs out of time still ends the making of ids.
func TestCloseWithoutRedis(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		w := leaseOf(t, b.Client(faults.Options), Options{})
		s := flakeOf(t, virtual, w)
		time.Sleep(time.Second)
		next(t, s)
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Times: -1})
		w.hurry()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.Close(ctx), context.DeadlineExceeded)
		_, ok := s.TryNext()
		require.False(t, ok)
		_, err := s.Next(t.Context())
		require.ErrorIs(t, err, ErrClosed)
	})
}
