package cache

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/redistest"
)

// Every script whose reply is lost is run again, which the server counts, and
// the second run changes nothing and answers as the first.
func TestLostReplies(t *testing.T) {
	srv := redistest.Server(t)
	f := &redistest.Faults{}
	rdb := srv.Client(f.Options)
	ctx := t.Context()
	d := newDB()
	c := open(t, rdb, d, Options{})
	connected(t, c)
	runs := func() int {
		n, err := srv.Executions(ctx, "evalsha")
		require.NoError(t, err)
		return n
	}
	for name, verb := range map[string]struct {
		lua string
		do  func(t *testing.T, key string)
	}{
		"read": {readLua, func(t *testing.T, key string) {
			_, ok, err := c.Peek(ctx, key)
			require.NoError(t, err)
			require.False(t, ok)
		}},
		"Set": {writeLua, func(t *testing.T, key string) {
			require.NoError(t, c.Set(ctx, key, "ann"))
			v, err := c.Get(ctx, key)
			require.NoError(t, err)
			require.Equal(t, "ann", v)
		}},
		"Add": {writeLua, func(t *testing.T, key string) {
			added, err := c.Add(ctx, key, "ann")
			require.NoError(t, err)
			require.True(t, added, "the first run did it")
		}},
		"Delete": {dropLua, func(t *testing.T, key string) {
			require.NoError(t, c.Delete(ctx, key))
		}},
		"lease": {leaseLua, func(t *testing.T, key string) {
			before := d.loads.Load()
			v, err := c.Get(ctx, key)
			require.NoError(t, err)
			require.Equal(t, "bob", v)
			require.EqualValues(t, 1, d.loads.Load()-before)
		}},
		"fill": {fillLua, func(t *testing.T, key string) {
			before := c.Stats().Refused
			_, err := c.Get(ctx, key)
			require.NoError(t, err)
			require.Equal(t, before, c.Stats().Refused, "the second run says what the first did")
			e, ok, err := c.Peek(ctx, key)
			require.NoError(t, err)
			require.True(t, ok)
			require.Positive(t, e.Version)
		}},
		"fail": {failLua, func(t *testing.T, key string) {
			d.fail(errors.New("boom"))
			defer d.fail(nil)
			_, err := c.Get(ctx, key)
			require.ErrorIs(t, err, ErrLoad)
			_, l := c.remote.keys(key)
			lease, err := rdb.Get(ctx, l).Result()
			require.NoError(t, err)
			require.Equal(t, "E", lease[:1])
			require.Equal(t, "01", lease[26:28], "one failure, not two")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, key := range []string{"known", "plain", "faulty"} {
				d.set(name+key, "bob")
			}
			verb.do(t, name+"known") // the server learns the scripts
			begun := runs()
			verb.do(t, name+"plain")
			plain := runs() - begun

			sum := sha1.Sum([]byte(verb.lua))
			f.Add(redistest.Rule{Do: redistest.CutAfter, Match: hex.EncodeToString(sum[:])})
			fired := f.Fired(redistest.CutAfter)
			begun = runs()
			verb.do(t, name+"faulty")
			require.Equal(t, fired+1, f.Fired(redistest.CutAfter))
			require.Equal(t, plain+1, runs()-begun, "one script ran once more")
		})
	}
}

// Redis goes away and comes back: what is fresh is answered, what is missing is
// loaded within limits, deletes are made up for.
func TestOutage(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx := t.Context()
		f := &redistest.Faults{}
		rdb := env.Client(f.Options, func(o *redis.Options) { o.DialTimeout, o.ReadTimeout = time.Second, time.Second })
		d := newDB("1", "ann", "2", "bob", "3", "cid", "4", "dee")
		prefix := redistest.Prefix(t)
		opts := Options{Prefix: prefix, OutageLoads: 2, Timeout: 200 * time.Millisecond, StaleFor: time.Hour, TTL: time.Minute, LocalTTL: time.Minute}
		c := open(t, rdb, d, opts)
		other := open(t, env.Client(), d, opts)
		time.Sleep(heartbeat / 2)
		require.False(t, c.Stats().CutOff)
		for _, k := range []string{"1", "2"} {
			_, err := c.Get(ctx, k)
			require.NoError(t, err)
			_, err = other.Get(ctx, k)
			require.NoError(t, err)
		}

		f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		begun := time.Now()
		v, err := c.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "ann", v)
		require.Zero(t, time.Since(begun), "a local hit does not notice")

		d.set("1", "anna")
		err = c.Delete(ctx, "1")
		require.Error(t, err, "ErrUnknown if the connection broke under it, ErrUnavailable else")
		require.Equal(t, 1, c.Stats().DeletesWaiting)
		v, err = c.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "anna", v, "it is forgotten here all the same, and loaded")

		_, err = c.Get(ctx, "3")
		require.NoError(t, err)
		time.Sleep(10 * time.Millisecond)
		loads := d.loads.Load()
		_, err = c.Get(ctx, "4")
		require.ErrorIs(t, err, ErrOverloaded)
		require.ErrorIs(t, err, ErrUnavailable)
		require.Equal(t, loads, d.loads.Load())

		time.Sleep(patience + 2*cutTTL)
		require.True(t, c.Stats().CutOff)
		begun = time.Now()
		for range 100 {
			_, err = c.Get(ctx, "2") // its turn to be loaded, or else stale
			require.NoError(t, err)
		}
		require.Positive(t, c.Stats().Loads)
		require.Less(t, time.Since(begun), time.Second, "the breaker does not let everyone wait")

		f.Clear()
		time.Sleep(10 * time.Second)
		require.Zero(t, c.Stats().DeletesWaiting)
		require.False(t, c.Stats().CutOff)
		v, err = other.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "anna", v, "the delete was made up for")
	})
}

func TestOutagePolicies(t *testing.T) {
	for policy, want := range map[Outage]string{OutageLoad: "new", OutageStale: "old", OutageFail: "old"} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			ctx := t.Context()
			f := &redistest.Faults{}
			rdb := env.Client(f.Options)
			d := newDB("1", "old")
			c := open(t, rdb, d, Options{WhenDown: policy, Timeout: 100 * time.Millisecond, StaleFor: time.Hour, TTL: time.Second, Jitter: -1, NotFoundTTL: time.Second})
			time.Sleep(heartbeat)
			_, err := c.Get(ctx, "1")
			require.NoError(t, err)
			d.set("1", "new")
			f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
			f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
			time.Sleep(2 * time.Second)
			v, err := c.Get(ctx, "1")
			require.NoError(t, err)
			require.Equal(t, want, v, "policy %d", policy)
			if policy == OutageFail {
				_, err = c.Get(ctx, "2")
				require.ErrorIs(t, err, ErrUnavailable)
			}
			f.Clear()
			time.Sleep(2 * time.Second) // go-redis dials once more after too many failures
		})
	}
}

// What is lost on the way between two processes, without either's connection
// breaking, is noticed by the numbers.
func TestGapsAreNoticed(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx := t.Context()
		d := newDB("1", "ann", "2", "bob")
		prefix := redistest.Prefix(t)
		a := open(t, env.Client(), d, Options{Prefix: prefix})
		b := open(t, env.Client(), d, Options{Prefix: prefix})
		time.Sleep(3 * heartbeat)
		for _, k := range []string{"1", "2"} {
			_, err := b.Get(ctx, k)
			require.NoError(t, err)
		}
		gaps := b.Stats().Gaps

		d.set("2", "bobby")
		require.NoError(t, a.Delete(ctx, "2"))
		time.Sleep(patience)
		require.Equal(t, gaps, b.Stats().Gaps, "nothing was lost")
		require.EqualValues(t, 1, b.Stats().Heard)

		// The message of one delete goes astray.
		d.set("1", "anna")
		channel := a.remote.channel
		a.remote.channel = "astray"
		require.NoError(t, a.Delete(ctx, "1"))
		a.remote.channel = channel
		v, err := b.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "ann", v, "b cannot know")
		time.Sleep(patience)
		require.Greater(t, b.Stats().Gaps, gaps)
		v, err = b.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "anna", v)
	})
}

// A process that is gone is forgotten, and one that hears nothing knows it.
func TestCutOff(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx := t.Context()
		f := &redistest.Faults{}
		rdb := env.Client(f.Options)
		d, prefix := newDB("1", "ann"), redistest.Prefix(t)
		a := open(t, env.Client(), d, Options{Prefix: prefix})
		b := open(t, rdb, d, Options{Prefix: prefix})
		time.Sleep(3 * heartbeat)
		_, err := b.Get(ctx, "1")
		require.NoError(t, err)

		// b does not hear itself any more, nor what a deletes; all else works.
		f.Add(redistest.Rule{Do: redistest.CutBefore, Match: "publish ", Times: -1})
		a.remote.channel = "astray"
		d.set("1", "anna")
		require.NoError(t, a.Delete(ctx, "1"))
		time.Sleep(patience + heartbeat)
		require.True(t, b.Stats().CutOff)
		v, err := b.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "anna", v)
		e, ok, err := b.Peek(ctx, "1")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, Local, e.Level)
		d.set("1", "annika")
		require.NoError(t, a.Delete(ctx, "1"))
		time.Sleep(cutTTL)
		v, err = b.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "annika", v, "nothing is kept longer than a second")
		f.Clear()
	})
}

// The connection that listens breaks and comes back: what was published meanwhile
// is lost, and so everything is old.
func TestReconnectFlushes(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		f, w := &redistest.Faults{}, &wire{}
		d, prefix := newDB("1", "ann"), redistest.Prefix(t)
		a := open(t, env.Client(), d, Options{Prefix: prefix})
		b := open(t, env.Client(w.Options, f.Options), d, Options{Prefix: prefix})
		time.Sleep(3 * heartbeat)
		require.Equal(t, "ann", get(t, b, "1"))
		gaps := b.Stats().Gaps
		f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		w.cut()
		d.set("1", "anna")
		require.NoError(t, a.Delete(t.Context(), "1"))
		require.Equal(t, "ann", get(t, b, "1"), "b cannot know")
		f.Clear()
		begun := time.Now()
		for b.Stats().Gaps == gaps {
			time.Sleep(time.Millisecond)
		}
		require.Less(t, time.Since(begun), heartbeat, "before the numbers tell")
		require.Equal(t, "anna", get(t, b, "1"))
		require.Zero(t, b.Stats().Heard)
	})
}

// What is heard late is as good as not heard: a process that hears itself with a
// delay knows that it may be missing what others did meanwhile.
func TestLateMessages(t *testing.T) {
	for lag, cut := range map[time.Duration]bool{200 * time.Millisecond: false, 10 * time.Second: true} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			w := &wire{}
			d, prefix := newDB("1", "v0"), redistest.Prefix(t)
			a := open(t, env.Client(), d, Options{Prefix: prefix})
			b := open(t, env.Client(w.Options), d, Options{Prefix: prefix})
			time.Sleep(3 * heartbeat)
			require.Equal(t, "v0", get(t, b, "1"))
			w.bus(lag, false)
			for i := range 30 {
				v := fmt.Sprint("v", i+1)
				d.set("1", v)
				require.NoError(t, a.Delete(t.Context(), "1"))
				time.Sleep(heardWithin)
				require.Equal(t, v, get(t, b, "1"))
				require.Equal(t, cut, b.Stats().CutOff)
			}
			w.bus(0, false)
			time.Sleep(2 * lag)
			time.Sleep(2 * heartbeat)
			require.False(t, b.Stats().CutOff)
		})
	}
}

// A consumer of the database's log deletes what it reads there, again and again
// and late: nobody ever gets more than a miss of it.
func TestReplayedDeletes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB(), redistest.Prefix(t)
		c, consumer := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		connected(t, c, consumer)
		for i := range 10 {
			v := strconv.Itoa(i)
			d.set("1", v)
			for range 3 {
				require.NoError(t, consumer.Delete(ctx, "1", "1", "never there"))
				require.NoError(t, c.Delete(ctx, "1"))
				require.Equal(t, v, get(t, c, "1"))
				require.Equal(t, v, get(t, consumer, "1"))
			}
		}
	})
}

// What failed to be deleted is remembered once a key, as many as there is room
// for; what was given up is counted.
func TestRedoIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := lifetime.New()
		var mu sync.Mutex
		down, tried, rounds := true, map[string]int{}, 0
		var r *redo
		r = newRedo(group, func(_ context.Context, names []string) []error {
			mu.Lock()
			defer mu.Unlock()
			rounds++
			errs := make([]error, len(names))
			for i, name := range names {
				tried[name]++
				if errs[i] = ErrUnavailable; !down {
					errs[i] = nil
					r.done(name)
				}
			}
			return errs
		}, slog.New(slog.DiscardHandler))
		for i := range maxRedo + 10 {
			r.add(strconv.Itoa(i))
			r.add("0")
		}
		n, lost := r.waiting()
		require.Equal(t, maxRedo, n)
		require.EqualValues(t, 10, lost)
		time.Sleep(time.Minute)
		mu.Lock()
		failed := rounds
		down = false
		mu.Unlock()
		require.InDelta(t, 6+60/5, failed, 2, "after 0.1, 0.2, 0.4, …, 5 s")
		time.Sleep(time.Minute)
		n, _ = r.waiting()
		require.Zero(t, n)
		r.add("later")
		time.Sleep(time.Second)
		r.stop()
		require.NoError(t, group.Drain(t.Context())) // nobody writes tried any more
		for i := range maxRedo {
			require.Positive(t, tried[strconv.Itoa(i)])
		}
		require.Equal(t, 1, tried["later"])
	})
}
