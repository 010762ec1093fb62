package delayqueue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured: calls.
func TestCostPerCall(t *testing.T) {
	rdb := redistest.Shared(t).Client()
	q := open(t, rdb, Options{})
	ctx := t.Context()
	_, err := q.AddMany(ctx, []Job{{ID: "waits", Delay: time.Hour}, {ID: "goes", Delay: time.Hour}})
	require.NoError(t, err)
	running, end := make(chan *Delivery), make(chan struct{})
	work(t, q, func(_ context.Context, d *Delivery) error {
		running <- d
		<-end
		return nil
	}, RunOptions{Lease: time.Hour, MaxSleep: time.Minute})
	defer close(end)
	_, err = q.Add(ctx, Job{})
	require.NoError(t, err)
	d := <-running

	var trips redistest.Trips
	rdb.AddHook(&trips)
	must := func(_ any, err error) { require.NoError(t, err) }
	rows := redistest.Costs(t)
	for name, call := range map[string]func(){
		"Add":        func() { must(q.Add(ctx, Job{Delay: time.Hour})) },
		"AddMany":    func() { must(q.AddMany(ctx, []Job{{Delay: time.Hour}, {Delay: time.Hour}})) },
		"Cancel":     func() { must(nil, q.Cancel(ctx, "goes")) },
		"Reschedule": func() { must(nil, q.Reschedule(ctx, "waits", time.Now().Add(time.Hour))) },
		"Get":        func() { must(q.Get(ctx, "waits")) },
		"Once":       func() { must(d.Once(ctx, "mail")) },
		"Dead":       func() { _, _, err := q.Dead(ctx, "", 10); must(nil, err) },
		"Redrive":    func() { must(q.Redrive(ctx, "waits")) },
		"Inspect":    func() { must(q.Inspect(ctx)) },
	} {
		rows.HoldTrips(t, &trips, name, call)
	}
}

// And what a worker does, in virtual time.
func TestCostOfRun(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		prefix := redistest.Prefix(t)
		producer := open(t, env.Client(), Options{Prefix: prefix})
		var trips redistest.Trips
		rdb := env.Client()
		q := open(t, rdb, Options{Prefix: prefix})
		takes := time.Duration(0)
		work(t, q, func(context.Context, *Delivery) error {
			time.Sleep(takes)
			return nil
		}, RunOptions{})
		row := func(name string) string { return redistest.Costs(t).Row(t, name)["round trips"] }
		add := func() { _, err := producer.Add(t.Context(), Job{}); require.NoError(t, err) }
		add()
		synctest.Wait() // the scripts are known from here on
		rdb.AddHook(&trips)
		sent := func(f func()) int64 {
			trips.N.Store(0)
			f()
			synctest.Wait()
			return trips.N.Load()
		}
		require.Equal(t, "1 claim, 1 ack, both shared by up to 128 jobs", row("Run, a job"))
		require.EqualValues(t, 1+1, sent(add))
		require.Equal(t, "1 a second and shard, and 1 when a job comes due", row("Run, idle"))
		require.InDelta(t, 60, sent(func() { time.Sleep(time.Minute) }), 1)
		require.Equal(t, "3 per lease and shard while handlers run", row("Run, leases"))
		takes = time.Hour
		add()
		synctest.Wait()
		const leases = 100
		renewals := sent(func() { time.Sleep(leases * 30 * time.Second) }) - leases*30 // less those of an idle Run
		require.InDelta(t, 3, float64(renewals)/leases, 0.5)
		time.Sleep(takes)
	})
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	t.Parallel()
	_, rdb := redistest.Limited(t)
	q := open(t, rdb, Options{MaxAttempts: 2})
	ctx := t.Context()
	s, renewed := newSeen(), make(chan struct{})
	work(t, q, func(ctx context.Context, d *Delivery) error {
		s.note(d)
		if _, err := d.Once(ctx, "mail"); err != nil {
			return err
		}
		switch {
		case d.ID == "long":
			<-renewed
		case d.ID == "snoozed" && d.Attempt == 1 && s.count(d.ID) == 1:
			return Snooze(time.Millisecond)
		case d.ID == "dies":
			return errors.New("no")
		}
		return nil
	}, RunOptions{Lease: 3 * time.Second, Backoff: func(int) time.Duration { return time.Millisecond }})
	for _, j := range []Job{
		{ID: "long"}, {ID: "snoozed"}, {ID: "dies"}, {ID: "unique", Unique: &Unique{Key: "u"}},
		{ID: "moved", Delay: time.Hour}, {ID: "cancelled", Delay: time.Hour},
	} {
		_, err := q.Add(ctx, j)
		require.NoError(t, err)
	}
	require.NoError(t, q.Reschedule(ctx, "moved", time.Now()))
	require.NoError(t, q.Cancel(ctx, "cancelled"))
	eventually(t, "starts", func() bool { return s.count("long") == 1 })
	first, err := q.Get(ctx, "long")
	require.NoError(t, err)
	eventually(t, "its lease is renewed", func() bool {
		i, err := q.Get(ctx, "long")
		return err == nil && i.Lease.After(first.Lease)
	})
	close(renewed)
	for _, id := range []string{"long", "snoozed", "unique", "moved"} {
		eventually(t, id, func() bool { return state(t, q, id) == Finished })
	}
	eventually(t, "dead", func() bool { return state(t, q, "dies") == Dead })
	_, _, err = q.Dead(ctx, "", 10)
	require.NoError(t, err)
	_, err = q.Redrive(ctx, "dies")
	require.NoError(t, err)
	require.NoError(t, q.Pause(ctx))
	require.NoError(t, q.Resume(ctx))
	periodic, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- q.RunPeriodic(periodic, Periodic{Name: "tick", Every: 100 * time.Millisecond}) }()
	eventually(t, "a periodic job", func() bool { return q.Stats().Succeeded > 4 })
	stop()
	require.NoError(t, <-ran)
	_, err = q.Inspect(ctx)
	require.NoError(t, err)
}
