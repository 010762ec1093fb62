package delayqueue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestBadInput(t *testing.T) {
	_, rdb := redistest.Mini(t)
	ctx := t.Context()
	q := open(t, rdb, Options{})
	for name, c := range map[string]struct {
		j    Job
		want string
	}{
		"negative delay":  {Job{Delay: -1}, "Job.Delay -1ns"},
		"eternal delay":   {Job{Delay: maxDelay + 1}, "Job.Delay"},
		"delay and time":  {Job{Delay: 1, At: time.Now()}, "want one of them"},
		"year 10000":      {Job{At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, "Job.At"},
		"10 KB id":        {Job{ID: strings.Repeat("x", 10<<10)}, "Job.ID of 10240 bytes"},
		"large body":      {Job{Body: make([]byte, 64<<10+1)}, "store it elsewhere"},
		"attempts":        {Job{MaxAttempts: -1}, "Job.MaxAttempts -1"},
		"empty unique":    {Job{Unique: &Unique{}}, "Job.Unique.Key"},
		"unknown policy":  {Job{Unique: &Unique{Key: "k", Policy: 3}}, "Job.Unique.Policy 3"},
		"long unique key": {Job{Unique: &Unique{Key: strings.Repeat("x", 257)}}, "Job.Unique.Key of 257"},
	} {
		_, err := q.Add(ctx, c.j)
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, c.want, name)
		require.Less(t, len(err.Error()), 600, name)
	}
	_, err := q.AddMany(ctx, make([]Job, 1001))
	require.ErrorIs(t, err, ErrInvalid)
	_, err = q.AddMany(ctx, slicesOf(Job{Body: make([]byte, 64<<10)}, 129))
	require.ErrorIs(t, err, ErrInvalid)
	res, err := q.AddMany(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, res)
	for _, err := range []error{
		q.Cancel(ctx, ""), q.Reschedule(ctx, "", time.Now()), errOfInfo(q.Get(ctx, strings.Repeat("x", 257))),
		q.Run(ctx, nil, RunOptions{}), q.Run(ctx, newSeen().handle, RunOptions{Lease: time.Millisecond}),
		q.Run(ctx, newSeen().handle, RunOptions{Concurrency: -1}), q.Run(ctx, newSeen().handle, RunOptions{Drain: -2}),
		q.Run(ctx, newSeen().handle, RunOptions{MaxSleep: time.Hour}), q.Run(ctx, newSeen().handle, RunOptions{MaxRun: -1}),
		q.RunPeriodic(ctx, Periodic{Every: time.Second}), q.RunPeriodic(ctx, Periodic{Name: "p"}),
		q.RunPeriodic(ctx, Periodic{Name: "p", Every: 1}), q.RunPeriodic(ctx, Periodic{Name: "p", Every: time.Hour, CatchUp: -2}),
	} {
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, _, err = q.Dead(ctx, "7/0", 1)
	require.ErrorIs(t, err, ErrInvalid)
	_, _, err = q.Dead(ctx, "", 0)
	require.ErrorIs(t, err, ErrInvalid)
	st, err := q.Inspect(ctx)
	require.NoError(t, err)
	require.Zero(t, st.Waiting, "nothing was stored")

	for name, opts := range map[string]Options{
		"Shards": {Shards: -1}, "MaxAttempts": {MaxAttempts: -1}, "MaxCrashes": {MaxCrashes: -1}, "MaxBody": {MaxBody: 2 << 20},
		"ReplayWindow": {ReplayWindow: time.Second}, "DeadRetention": {DeadRetention: 1},
	} {
		_, err := New(rdb, "q", opts)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options."+name)
	}
	_, err = New(nil, "q", Options{})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = New(rdb, "", Options{})
	require.ErrorIs(t, err, ErrInvalid)
}

func slicesOf(j Job, n int) []Job {
	out := make([]Job, n)
	for i := range out {
		out[i] = j
	}
	return out
}

func errOfInfo(_ Info, err error) error { return err }

// A server that may evict keys is refused, unless that is wanted.
func TestEviction(t *testing.T) {
	rdb := redistest.Server(t, "--maxmemory-policy", "allkeys-lru").Client()
	_, err := New(rdb, "orders", Options{})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "allkeys-lru")
	require.ErrorContains(t, err, "AllowEviction")
	_, err = New(rdb, "orders", Options{AllowEviction: true})
	require.NoError(t, err)
}

func TestClosed(t *testing.T) {
	_, rdb := redistest.Mini(t)
	ctx := t.Context()
	q := open(t, rdb, Options{})
	require.NoError(t, q.Close(ctx))
	require.NoError(t, q.Close(ctx))
	_, err := q.AddMany(ctx, []Job{{}})
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Redrive(ctx, "a")
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Inspect(ctx)
	require.ErrorIs(t, err, ErrClosed)
	for _, err := range []error{
		errOf(q.Add(ctx, Job{})), q.Cancel(ctx, "a"), q.Reschedule(ctx, "a", time.Now()), errOfInfo(q.Get(ctx, "a")),
		q.Pause(ctx), q.Resume(ctx), q.Run(ctx, newSeen().handle, RunOptions{}), q.RunPeriodic(ctx, Periodic{Name: "p", Every: time.Hour}),
	} {
		require.ErrorIs(t, err, ErrClosed)
	}
}

// The number of shards is that of the first use; no two queues share a shard.
func TestShards(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := open(t, rdb, Options{Shards: 5})
		_, err := New(rdb, "orders", Options{Prefix: q.opts.Prefix, Shards: 4})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options.Shards 4, but the queue was first used with 5")
		other, err := New(rdb, "orders#0", Options{Prefix: q.opts.Prefix})
		require.NoError(t, err)
		_, err = other.Add(ctx, Job{ID: "a", Delay: time.Hour})
		require.NoError(t, err)
		require.Zero(t, state(t, q, "a"))

		jobs := make([]Job, 500)
		for i := range jobs {
			jobs[i] = Job{ID: fmt.Sprint("id", i), Delay: time.Hour}
		}
		_, err = q.AddMany(ctx, jobs)
		require.NoError(t, err)
		for i := range q.shards {
			n, err := rdb.ZCard(ctx, q.shards[i].keys[0]).Result()
			require.NoError(t, err)
			require.InDelta(t, 100, n, 50)
		}
		// A unique key and an id both choose a shard.
		_, err = q.Add(ctx, Job{ID: "id3", Unique: &Unique{Key: "k1"}})
		if err == nil || !strings.Contains(err.Error(), "leave ID empty") {
			_, err = q.Add(ctx, Job{ID: "id3", Unique: &Unique{Key: "k2"}})
		}
		require.Error(t, err)
		for range 20 {
			id, err := q.Add(ctx, Job{Unique: &Unique{Key: "k"}, Delay: time.Hour})
			if err == nil {
				require.Same(t, q.shardOf("k"), q.shardOf(id))
				require.NoError(t, q.Cancel(ctx, id))
			}
		}
	})
}

func TestUnique(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := open(t, rdb, Options{})
		job := func(p Policy, body string, at int64) Job {
			return Job{Body: []byte(body), At: time.UnixMilli(at), Unique: &Unique{Key: "k:1\x00", Policy: p}, MaxAttempts: 9}
		}
		far := time.Now().Add(time.Hour).UnixMilli()
		first, err := q.Add(ctx, job(Replace, "a", far))
		require.NoError(t, err)
		same := func(id string, err error) {
			t.Helper()
			require.NoError(t, err)
			require.Equal(t, first, id)
		}
		is := func(body string, at int64) {
			t.Helper()
			i, err := q.Get(ctx, first)
			require.NoError(t, err)
			require.Equal(t, body, string(i.Body))
			require.Equal(t, at, i.Due.UnixMilli())
		}
		holder, err := q.Add(ctx, job(Reject, "b", far))
		require.ErrorIs(t, err, ErrNotUnique)
		require.Equal(t, first, holder)
		is("a", far)
		same(q.Add(ctx, job(Replace, "c", far+5)))
		is("c", far+5)
		same(q.Add(ctx, job(Extend, "d", far+9)))
		is("c", far+9)
		// In one batch each sees what those before it did.
		res, err := q.AddMany(ctx, []Job{job(Extend, "e", far+11), job(Replace, "f", far+10), job(Reject, "g", far), job(Extend, "h", 1)})
		require.NoError(t, err)
		require.Equal(t, []string{first, first, first, first}, []string{res[0].ID, res[1].ID, res[2].ID, res[3].ID})
		require.ErrorIs(t, res[2].Err, ErrNotUnique)
		is("f", 1)

		// Running, it can be changed no more: the next one waits beside it.
		c := newClaimer(q, &q.shards[0], newToken(), time.Minute)
		got, err := c.claim(ctx, 5)
		require.NoError(t, err)
		require.Len(t, got.jobs, 1)
		_, err = q.Add(ctx, job(Reject, "i", 1))
		require.ErrorIs(t, err, ErrNotUnique)
		second, err := q.Add(ctx, job(Extend, "j", far))
		require.NoError(t, err)
		require.NotEqual(t, first, second)
		// The end of the first does not free the key that the second took over.
		code, err := q.settle(ctx, &q.shards[0], &settleOp{id: first, token: got.jobs[0].token, verb: "A"})
		require.NoError(t, err)
		require.Zero(t, code)
		_, err = q.Add(ctx, job(Reject, "k", 1))
		require.ErrorIs(t, err, ErrNotUnique)
		require.NoError(t, q.Cancel(ctx, second))
		_, err = q.Add(ctx, job(Reject, "l", far))
		require.NoError(t, err, "cancelled, it frees its key")
	})
}

// Bodies and ids of any bytes, and large ones, come out as they went in; a claim takes
// no more bytes than it may, and all jobs run.
func TestBodies(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := open(t, rdb, Options{})
		want := map[string][]byte{}
		for i := range 60 {
			id := fmt.Sprintf("%c\n{%%}%s", i, strings.Repeat("é", i))
			want[id] = bytes.Repeat([]byte{byte(i), 0, ':', '\r', 0xff}, i*i*3)
			_, err := q.Add(ctx, Job{ID: id, Body: want[id], At: time.Unix(int64(i), 0)})
			require.NoError(t, err)
		}
		c := newClaimer(q, &q.shards[0], newToken(), time.Minute)
		got, err := c.claim(ctx, 128)
		require.NoError(t, err)
		require.Less(t, len(got.jobs), 60)
		require.Greater(t, len(got.jobs), 40)
		for i, d := range got.jobs {
			require.Equal(t, int64(i), d.Due.Unix(), "oldest first")
			require.True(t, bytes.Equal(want[d.ID], d.Body))
			code, err := q.settle(ctx, d.shard, &settleOp{id: d.ID, token: d.token, verb: "A"})
			require.NoError(t, err)
			require.Zero(t, code)
		}
		rest, err := c.claim(ctx, 128)
		require.NoError(t, err)
		require.Len(t, rest.jobs, 60-len(got.jobs))
		for _, d := range rest.jobs {
			require.True(t, bytes.Equal(want[d.ID], d.Body))
		}
	})
}

func TestOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := open(t, rdb, Options{})
		firsts := make(chan bool, 9)
		work(t, q, func(ctx context.Context, d *Delivery) error {
			for _, effect := range []string{"a", "b", "a"} {
				first, err := d.Once(ctx, effect)
				require.NoError(t, err)
				firsts <- first
			}
			if d.Attempt < 3 {
				return fmt.Errorf("again")
			}
			return nil
		}, RunOptions{Backoff: func(int) time.Duration { return 0 }})
		_, err := q.Add(t.Context(), Job{ID: "x"})
		require.NoError(t, err)
		for _, want := range []bool{true, true, false, false, false, false, false, false, false} {
			require.Equal(t, want, <-firsts)
		}
	})
}

// A job has the markers of an earlier one of its id no more than its body; what happens
// to itself changes nothing.
func TestBubbleOnceOfAnIDUsedAgain(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{})
		var firsts []bool
		work(t, q, func(ctx context.Context, d *Delivery) error {
			first, err := d.Once(ctx, "mail")
			require.NoError(t, err)
			firsts = append(firsts, first)
			if d.Attempt == 1 {
				return errors.New("again")
			}
			return nil
		}, RunOptions{})
		for range 3 {
			_, err := q.Add(t.Context(), Job{ID: "a"})
			require.NoError(t, err)
			time.Sleep(24 * time.Minute) // by now the id is free again
		}
		require.Equal(t, []bool{true, false, true, false, true, false}, firsts)
	})
}

// A worker that died, and Redrive, leave the marker as it is.
func TestOnceOutlivesCrashAndRedrive(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := open(t, rdb, Options{MaxAttempts: 1})
		s := &q.shards[0]
		_, err := q.Add(t.Context(), Job{ID: "a"})
		require.NoError(t, err)
		run := func() (*Delivery, bool) {
			t.Helper()
			var got claim
			require.Eventually(t, func() bool {
				var err error
				got, err = newClaimer(q, s, newToken(), time.Millisecond).claim(t.Context(), 1)
				require.NoError(t, err)
				return len(got.jobs) == 1
			}, time.Minute, time.Millisecond)
			first, err := got.jobs[0].Once(t.Context(), "mail")
			require.NoError(t, err)
			return got.jobs[0], first
		}
		_, first := run()
		require.True(t, first)
		d, first := run() // its lease is over
		require.Equal(t, 1, d.Crashes)
		require.False(t, first)
		code, err := q.settle(t.Context(), s, &settleOp{id: d.ID, token: d.token, verb: "D", text: "no"})
		require.NoError(t, err)
		require.Zero(t, code)
		n, err := q.Redrive(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, first = run()
		require.False(t, first)
	})
}

func TestLostReplyOfOnce(t *testing.T) {
	l := newLossy(t, Options{})
	l.add(Job{ID: "a"})
	d := l.one(l.claimer())
	for _, want := range []bool{true, false} {
		l.twice(func() {
			first, err := d.Once(t.Context(), "effect")
			require.NoError(t, err)
			require.Equal(t, want, first)
		}, onceLua)
	}
}
