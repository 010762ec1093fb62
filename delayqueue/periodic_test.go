package delayqueue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// hourly runs at seven past.
type hourly struct{}

func (hourly) Next(t time.Time) time.Time {
	return t.Add(53 * time.Minute).Truncate(time.Hour).Add(7 * time.Minute)
}

// Three processes, one run at each time; what was missed is made up for as asked.
func TestBubblePeriodic(t *testing.T) {
	t.Parallel()
	for catchUp, want := range map[int]int{-1: 0, 0: 1, 3: 3, 100: 5} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			q := open(t, b.Client(), Options{})
			s := newSeen()
			work(t, q, s.handle, RunOptions{MaxSleep: time.Minute})
			fleet := func() (stop func()) {
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				for range 3 {
					go func() {
						ended <- q.RunPeriodic(ctx, Periodic{Name: "report", Schedule: hourly{}, CatchUp: catchUp, Body: []byte("b")})
					}()
				}
				return func() {
					cancel()
					for range 3 {
						require.NoError(t, <-ended)
					}
				}
			}
			stop := fleet()
			time.Sleep(3*time.Hour + 30*time.Minute) // the bubble began at midnight
			synctest.Wait()
			require.Len(t, s.all(), 4)
			for _, d := range s.all() {
				require.Equal(t, 7, d.Due.Minute())
				require.Equal(t, 1, s.count(d.ID))
			}
			stop()
			time.Sleep(5 * time.Hour)
			stop = fleet()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			require.Len(t, s.all(), 4+want, "CatchUp %d", catchUp)
			time.Sleep(time.Hour)
			synctest.Wait()
			require.Len(t, s.all(), 5+want)
			stop()
		})
	}
}

func TestBubblePeriodicEvery(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		q := open(t, b.Client(), Options{Shards: 3})
		s := newSeen()
		work(t, q, s.handle, RunOptions{MaxSleep: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Second)
		defer cancel()
		require.NoError(t, q.RunPeriodic(ctx, Periodic{Name: "every", Every: 7 * time.Second}))
		synctest.Wait()
		require.InDelta(t, 3600/7, len(s.all()), 1)
		for i, d := range s.all() {
			require.Zero(t, d.Due.Sub(s.all()[0].Due)-time.Duration(i)*7*time.Second)
		}
	})
}

// ticksOf is a Schedule of times that are no whole milliseconds.
type ticksOf time.Duration

func (d ticksOf) Next(t time.Time) time.Time {
	return t.Truncate(time.Duration(d)).Add(time.Duration(d))
}

// Times that are no whole milliseconds: each has one job, not early, and between them
// nobody asks.
func TestBubblePeriodicFractions(t *testing.T) {
	t.Parallel()
	const every = time.Hour / 7
	for name, p := range map[string]Periodic{
		"Every": {Name: "p", Every: every}, "Schedule": {Name: "p", Schedule: ticksOf(every)},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				q := open(t, b.Client(), Options{})
				s := newSeen()
				work(t, q, s.handle, RunOptions{MaxSleep: time.Minute})
				p, err := p.withDefaults(&q.opts)
				require.NoError(t, err)
				start := time.Now()
				for range 2*70 + 1 { // one call that adds, one that says for how long to wait
					wait, err := q.tick(t.Context(), &q.shards[0], &p)
					require.NoError(t, err)
					time.Sleep(wait)
				}
				require.Greater(t, time.Since(start), 9*time.Hour, "it asks without end")
				synctest.Wait()
				require.InDelta(t, 70, len(s.all()), 1)
				for _, d := range s.all() {
					require.Equal(t, 1, s.count(d.ID))
					require.Less(t, d.Due.Sub(d.Due.Truncate(every)), time.Millisecond, "rounded up")
				}
			})
		})
	}
}

// The step that moves the schedule adds the job, once, whichever reply is lost.
func TestLostReplyOfPeriodic(t *testing.T) {
	l := newLossy(t, Options{})
	p, err := Periodic{Name: "p", Every: time.Hour}.withDefaults(&l.opts)
	require.NoError(t, err)
	move := func(before string, at int64, add bool) {
		l.twice(func() {
			require.NoError(t, l.moveTick(t.Context(), &l.shards[0], &p, before, time.UnixMilli(at), add))
		}, readLua, addLua)
	}
	move("", 1000, false)
	move("1000", 2000, true)
	move("1000", 2000, true) // another process
	move("1000", 3000, true)
	require.Equal(t, int64(1), l.waiting())
}
