package lock

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// kinds are what a Locker gives, of which one at a time can be had.
var kinds = map[string]func(*Locker, context.Context) (context.Context, *Lease, error){
	"lock": func(l *Locker, ctx context.Context) (context.Context, *Lease, error) { return l.Lock(ctx, "a") },
	"rw":   func(l *Locker, ctx context.Context) (context.Context, *Lease, error) { return l.RW("a").Lock(ctx) },
	"sem": func(l *Locker, ctx context.Context) (context.Context, *Lease, error) {
		return l.Semaphore("a", 1).Lock(ctx)
	},
}

// away takes Redis away from l, and the connections that it has.
func away(t *testing.T, l *Locker, f *redistest.Faults) {
	t.Helper()
	down(f)
	require.Error(t, l.rdb.Ping(t.Context()).Err())
}

// An Unlock while Redis is away costs those who wait that time, and not the TTL.
func TestAnUnlockThatFailedIsTriedOn(t *testing.T) {
	for kind, take := range kinds {
		for _, fair := range []bool{false, true} {
			for _, want := range []error{ErrUnavailable, ErrUnknown} {
				t.Run(fmt.Sprint(kind, fair, want), func(t *testing.T) {
					redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
						opts := Options{Prefix: "p", TTL: time.Minute, Fair: fair}
						l, f := faulty(t, b, opts)
						other := open(t, b.Client(), opts)
						_, s, err := take(l, t.Context())
						require.NoError(t, err)
						got := make(chan *Lease)
						go func() {
							_, s, _ := take(other, t.Context())
							got <- s
						}()
						synctest.Wait()
						if errors.Is(want, ErrUnavailable) {
							away(t, l, f)
						} else {
							f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
						}
						start := time.Now()
						require.ErrorIs(t, s.Unlock(t.Context()), want)
						time.Sleep(time.Until(start.Add(15 * time.Second)))
						f.Clear()
						next := <-got
						require.Less(t, time.Since(start), 20*time.Second)
						require.Greater(t, next.Fence(), s.Fence())
						require.Zero(t, l.Stats().Renewals)
						require.NoError(t, s.Unlock(t.Context()), "asked again, Redis remembers")
						require.NoError(t, next.Unlock(t.Context()))
						time.Sleep(2 * time.Second) // go-redis dials once a second until it succeeds
					})
				})
			}
		}
	}
}

// It is tried on until the validity ends, and no longer, and not over Close.
func TestAnUnlockThatFailsForGood(t *testing.T) {
	for kind, take := range kinds {
		t.Run(kind, func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				l, f := faulty(t, b, Options{Prefix: "p", TTL: 20 * time.Second})
				_, s, err := take(l, t.Context())
				require.NoError(t, err)
				away(t, l, f)
				require.ErrorIs(t, s.Unlock(t.Context()), ErrUnavailable)
				time.Sleep(time.Until(s.Deadline()))
				tried := l.Stats().Failures
				require.Greater(t, tried, uint64(5))
				time.Sleep(time.Minute)
				require.LessOrEqual(t, l.Stats().Failures, tried+1)

				f.Clear()
				time.Sleep(2 * time.Second) // go-redis dials once a second until it succeeds
				_, s, err = take(l, t.Context())
				require.NoError(t, err)
				away(t, l, f)
				require.ErrorIs(t, s.Unlock(t.Context()), ErrUnavailable)
				start := time.Now()
				require.NoError(t, l.Close(t.Context()))
				require.Less(t, time.Since(start), time.Second)
				f.Clear()
				time.Sleep(2 * time.Second)
			})
		})
	}
}
