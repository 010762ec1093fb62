package cache

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A loader that outlives its lease, whose process another one takes for dead: what
// it brings is answered and not kept.
func TestLeaseOutlived(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		prefix := redistest.Prefix(t)
		opts := Options{Prefix: prefix, LoadTimeout: time.Second}
		deaf := openSource(t, env.Client(), Source[string, string]{Load: func(context.Context, string) (string, error) {
			time.Sleep(5 * time.Second) // it does not obey its ctx
			return "old", nil
		}}, opts)
		d := newDB("1", "new")
		other := open(t, env.Client(), d, opts)
		first := make(chan string)
		go func() {
			v, err := deaf.Get(t.Context(), "1")
			if err != nil {
				t.Error(err)
			}
			first <- v
		}()
		synctest.Wait()
		begun := time.Now()
		v, err := other.Get(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "new", v)
		require.InDelta(t, 2, time.Since(begun).Seconds(), 0.1, "when the lease ended")
		require.Equal(t, "old", <-first)
		require.EqualValues(t, 1, deaf.Stats().Refused)
		v, err = deaf.Get(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

// Two processes find a key nowhere. One of them is slow, and asks for the lease
// when the other has loaded, stored, and given it back: it must not load again.
func TestLeaseIsForWhatWasSeen(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB("1", "ann"), redistest.Prefix(t)
		a, b := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		slow := &flight[string, string]{key: "1", name: "1", hash: b.local.hash("1"), done: make(chan struct{})}
		e, err := b.remote.read(ctx, "1")
		require.NoError(t, err)
		require.Nil(t, b.take(slow, e, b.local.mark(slow.hash)))
		require.Equal(t, "ann", get(t, a, "1"))
		it, err := b.fetch(ctx, slow, nil)
		require.NoError(t, err)
		require.Equal(t, "ann", it.value)
		require.EqualValues(t, 1, d.loads.Load())
	})
}

// Whoever leaves takes no lease with him that nobody knows of: the next one need
// not wait for its end.
func TestAbandonedLeases(t *testing.T) {
	opts := Options{CancelAbandoned: true, LoadTimeout: time.Minute}
	soon := func(t *testing.T, c *Cache[string, string]) {
		t.Helper()
		begun := time.Now()
		require.Equal(t, "ann", get(t, c, "1"))
		require.Less(t, time.Since(begun), time.Second)
	}
	t.Run("as it is asked for", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			f := &redistest.Faults{}
			d := newDB("1", "ann")
			c := open(t, env.Client(f.Options), d, opts)
			_, _ = c.Get(t.Context(), "2") // the server learns the scripts
			sum := sha1.Sum([]byte(leaseLua))
			f.Add(redistest.Rule{Do: redistest.DelayReply, Match: hex.EncodeToString(sum[:]), Delay: 2 * time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Get(ctx, "1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(2 * time.Second)
			require.Equal(t, 1, f.Fired(redistest.DelayReply))
			require.EqualValues(t, 1, d.loads.Load(), "that of the other key")
			soon(t, c)
		})
	})
	t.Run("under a loader that does not obey", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			var loads atomic.Int64
			c := openSource(t, env.Client(), Source[string, string]{Load: func(context.Context, string) (string, error) {
				loads.Add(1)
				time.Sleep(2 * time.Second)
				return "ann", nil
			}}, opts)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Get(ctx, "1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(2 * time.Second)
			soon(t, c)
			require.EqualValues(t, 1, loads.Load(), "what it brought was kept")
		})
	})
}

// A lease is granted, but the answer comes too late: it is given back, and other
// processes need not wait for its end.
func TestLeaseIsGrantedTooLate(t *testing.T) {
	for name, get := range map[string]func(ctx context.Context, c *Cache[string, string]) (string, error){
		"Get": func(ctx context.Context, c *Cache[string, string]) (string, error) { return c.Get(ctx, "1") },
		"GetMany": func(ctx context.Context, c *Cache[string, string]) (string, error) {
			found, err := c.GetMany(ctx, []string{"1", "2"})
			return found["1"], err
		},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
				ctx, f := t.Context(), &redistest.Faults{}
				d, prefix := newDB("1", "x", "2", "y", "3", "z"), redistest.Prefix(t)
				opts := Options{Prefix: prefix, Timeout: 500 * time.Millisecond, LoadTimeout: 30 * time.Second}
				rdb := env.Client(f.Options, func(o *redis.Options) { o.ReadTimeout = opts.Timeout })
				c, other := open(t, rdb, d, opts), open(t, env.Client(), d, opts)
				begin()
				_, _ = c.GetMany(ctx, []string{"3", "4"}) // the server learns the scripts
				sum := sha1.Sum([]byte(leaseLua))
				f.Add(redistest.Rule{Do: redistest.DelayReply, Match: hex.EncodeToString(sum[:]), Delay: 600 * time.Millisecond})
				for _, c := range []*Cache[string, string]{c, other} {
					begun := time.Now()
					v, err := get(ctx, c)
					require.NoError(t, err)
					require.Equal(t, "x", v)
					require.Less(t, time.Since(begun), 2*opts.Timeout)
				}
				require.Equal(t, 1, f.Fired(redistest.DelayReply))
			})
		})
	}
}
