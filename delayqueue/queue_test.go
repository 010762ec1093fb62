package delayqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func open(t testing.TB, rdb redis.UniversalClient, opts Options) *Queue {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	q, err := New(rdb, "orders", opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close(context.WithoutCancel(t.Context()))) })
	return q
}

// work starts a Run and returns how to end it; the end of the test does too.
func work(t testing.TB, q *Queue, h Handler, opts RunOptions) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, h, opts) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

// A seen is what a handler was given.
type seen struct {
	mu   sync.Mutex
	runs map[string]int
	list []Delivery
	ch   chan string
}

func newSeen() *seen { return &seen{runs: map[string]int{}, ch: make(chan string, 1<<16)} }

func (s *seen) handle(_ context.Context, d *Delivery) error {
	s.note(d)
	return nil
}

func (s *seen) note(d *Delivery) {
	s.mu.Lock()
	s.runs[d.ID]++
	s.list = append(s.list, Delivery{ID: d.ID, Body: d.Body, Due: d.Due, Attempt: d.Attempt, Crashes: d.Crashes})
	s.mu.Unlock()
	s.ch <- d.ID
}

// next returns the next job that ran.
func (s *seen) next(t testing.TB) string {
	t.Helper()
	select {
	case id := <-s.ch:
		return id
	case <-time.After(time.Minute):
		require.FailNow(t, "no job ran")
		return ""
	}
}

// all returns what ran so far.
func (s *seen) all() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func (s *seen) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

// eventually waits until what happens in the background has happened.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, time.Minute, time.Millisecond, what)
}

func state(t testing.TB, q *Queue, id string) State {
	t.Helper()
	i, err := q.Get(t.Context(), id)
	if errors.Is(err, ErrNotFound) {
		return 0
	}
	require.NoError(t, err)
	return i.State
}

// The life of a job, on every kind of server.
func TestLife(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := open(t, rdb, Options{Shards: 3})
		id, err := q.Add(ctx, Job{Body: []byte("a"), Delay: 10 * time.Minute})
		require.NoError(t, err)
		require.Len(t, id, 16)
		i, err := q.Get(ctx, id)
		require.NoError(t, err)
		require.Equal(t, Waiting, i.State)
		require.Equal(t, "a", string(i.Body))
		now, err := rdb.Time(ctx).Result()
		require.NoError(t, err)
		require.WithinDuration(t, now.Add(10*time.Minute), i.Due, time.Minute)

		s := newSeen()
		stop := work(t, q, s.handle, RunOptions{})
		_, err = q.Add(ctx, Job{ID: "now", Body: []byte("b\x00\r\n{}"), Unique: nil, MaxAttempts: 7})
		require.NoError(t, err)
		require.Equal(t, "now", s.next(t))
		require.Equal(t, "b\x00\r\n{}", string(s.all()[0].Body))
		require.Equal(t, 1, s.all()[0].Attempt)
		eventually(t, "acked", func() bool { return state(t, q, "now") == Finished })
		_, err = q.Add(ctx, Job{ID: "now"})
		require.ErrorIs(t, err, ErrDuplicate)
		require.ErrorIs(t, err, ErrFinished)
		require.ErrorIs(t, q.Cancel(ctx, "now"), ErrFinished)
		require.ErrorIs(t, q.Reschedule(ctx, "now", time.Now()), ErrFinished)

		// Rescheduled into the past it runs at once.
		require.NoError(t, q.Reschedule(ctx, id, time.Now().Add(-time.Hour)))
		require.Equal(t, id, s.next(t))

		// Cancelled it never runs, and its id stays taken.
		_, err = q.Add(ctx, Job{ID: "c", Delay: time.Hour})
		require.NoError(t, err)
		_, err = q.Add(ctx, Job{ID: "c", Delay: time.Hour})
		require.ErrorIs(t, err, ErrDuplicate)
		require.NotErrorIs(t, err, ErrFinished)
		require.NoError(t, q.Cancel(ctx, "c"))
		require.NoError(t, q.Cancel(ctx, "c"))
		require.Equal(t, Cancelled, state(t, q, "c"))
		_, err = q.Add(ctx, Job{ID: "c"})
		require.ErrorIs(t, err, ErrCancelled)
		require.ErrorIs(t, q.Reschedule(ctx, "c", time.Now()), ErrCancelled)
		require.ErrorIs(t, q.Cancel(ctx, "nobody"), ErrNotFound)
		require.ErrorIs(t, q.Reschedule(ctx, "nobody", time.Now()), ErrNotFound)

		res, err := q.AddMany(ctx, []Job{{ID: "m1"}, {ID: "m2", Delay: -1}, {ID: "m1"}, {Delay: time.Hour}})
		require.NoError(t, err)
		require.NoError(t, res[0].Err)
		require.ErrorIs(t, res[1].Err, ErrInvalid)
		require.ErrorIs(t, res[2].Err, ErrDuplicate)
		require.NoError(t, res[3].Err)
		require.Equal(t, "m1", s.next(t))
		stop()
		left, err := q.Inspect(ctx)
		require.NoError(t, err)
		require.Equal(t, int64(1), left.Waiting)
		require.Zero(t, left.Running)
		require.Zero(t, q.Stats().LostHints)
		require.Equal(t, uint64(3), q.Stats().Succeeded)
	})
}

func TestFailuresAndDeadLetters(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := open(t, rdb, Options{MaxAttempts: 3})
		s := newSeen()
		opts := RunOptions{Backoff: func(n int) time.Duration { return time.Duration(n) * time.Millisecond }}
		work(t, q, func(_ context.Context, d *Delivery) error {
			s.note(d)
			switch string(d.Body) {
			case "panic":
				panic("oh")
			case "discard":
				return fmt.Errorf("wrapped: %w", Discard(errors.New("hopeless")))
			case "snooze":
				if s.count(d.ID) < 5 {
					return Snooze(time.Millisecond)
				}
				return nil
			case "twice":
				if d.Attempt < 3 {
					return errors.New("not yet")
				}
				return nil
			}
			return errors.New("no: " + strings.Repeat("é", 2000))
		}, opts)
		for _, id := range []string{"panic", "discard", "snooze", "twice", "fail"} {
			_, err := q.Add(ctx, Job{ID: id, Body: []byte(id)})
			require.NoError(t, err)
		}
		_, err := q.Add(ctx, Job{ID: "fail1", MaxAttempts: 1, Unique: &Unique{Key: "k"}})
		require.NoError(t, err)
		for id, want := range map[string]State{"panic": Dead, "discard": Dead, "snooze": Finished, "twice": Finished, "fail": Dead, "fail1": Dead} {
			eventually(t, id, func() bool { return state(t, q, id) == want })
		}
		for id, want := range map[string]int{"panic": 3, "discard": 1, "snooze": 5, "twice": 3, "fail": 3, "fail1": 1} {
			require.Equal(t, want, s.count(id), id)
		}
		dead, next, err := q.Dead(ctx, "", 2)
		require.NoError(t, err)
		require.Len(t, dead, 2)
		require.NotEmpty(t, next)
		more, next, err := q.Dead(ctx, next, 10)
		require.NoError(t, err)
		require.Empty(t, next)
		dead = append(dead, more...)
		require.Len(t, dead, 4)
		errs := map[string]string{}
		for _, i := range dead {
			require.Equal(t, Dead, i.State)
			require.WithinDuration(t, time.Now(), i.Died, time.Minute)
			errs[i.ID] = i.Error
		}
		require.Equal(t, "panic: oh", errs["panic"])
		require.Equal(t, "hopeless", errs["discard"])
		require.Len(t, errs["fail"], 1024)
		require.ErrorIs(t, q.Reschedule(ctx, "fail", time.Now()), ErrDead)
		_, err = q.Add(ctx, Job{ID: "fail"})
		require.ErrorIs(t, err, ErrDuplicate)
		// A dead job frees its unique key.
		_, err = q.Add(ctx, Job{Unique: &Unique{Key: "k"}, Delay: time.Hour})
		require.NoError(t, err)

		n, err := q.Redrive(ctx, "fail", "discard", "twice", "nobody")
		require.NoError(t, err)
		require.Equal(t, 2, n)
		eventually(t, "failed again", func() bool { return s.count("fail") == 6 && s.count("discard") == 2 })
		eventually(t, "dead again", func() bool { return state(t, q, "fail") == Dead })
		require.NoError(t, q.Cancel(ctx, "fail"))
		require.Equal(t, Cancelled, state(t, q, "fail"))
		require.Zero(t, q.Stats().LostHints)
	})
}
