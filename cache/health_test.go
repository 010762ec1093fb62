package cache

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Many callers share a round trip that is slow. That is one failure of Redis, however
// many hear of it: it is asked again soon.
func TestSharedRoundTripIsSlow(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, d := t.Context(), newDB()
		f := &redistest.Faults{}
		c := open(t, env.Client(f.Options), d, Options{Local: -1, Timeout: 500 * time.Millisecond})
		begin()
		for i := range 40 {
			d.set(fmt.Sprint(i), "x")
			get(t, c, fmt.Sprint(i))
		}
		f.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: 600 * time.Millisecond, Times: -1})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if v, err := c.Get(ctx, fmt.Sprint(i)); err != nil || v != "x" {
					t.Error(v, err)
				}
			})
		}
		wg.Wait()
		f.Clear()
		require.True(t, c.remote.health.breaker.Open())
		begun := time.Now()
		for c.remote.health.breaker.Open() {
			time.Sleep(10 * time.Millisecond)
			_, _, _ = c.Peek(ctx, "1")
		}
		require.Less(t, time.Since(begun), time.Second)
	})
}
