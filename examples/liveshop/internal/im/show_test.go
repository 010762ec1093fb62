package im

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// counting is a show: what it shows, and how often it was asked, by room.
type counting struct {
	value atomic.Int64
	asked [3]atomic.Int64
}

func (c *counting) into(h *Hub) {
	h.Show("left", func(_ context.Context, room int64) (any, error) {
		c.asked[room].Add(1)
		if v := c.value.Load(); v > 0 {
			return map[string]int64{"n": v}, nil
		}
		return nil, nil
	})
}

// A show is asked for once a second and room by each server that has somebody there,
// however many they are, and handed out when it changed; nothing of it passes through Redis.
func TestShow(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		elsewhere := spy(t, b.Client(), "one", "two")
		var shows [2]counting
		one, two := start(t, b.Client(), "one", shows[0].into), start(t, b.Client(), "two", shows[1].into)
		here := []*viewer{one.viewer(1, 10), one.viewer(1, 11), one.viewer(1, 12)}
		there := two.viewer(1, 20)
		time.Sleep(showEvery)
		settle()
		require.Empty(t, there.of("left"), "nil shows nothing")

		shows[0].value.Store(7)
		shows[1].value.Store(7)
		before := shows[0].asked[1].Load()
		time.Sleep(10 * showEvery)
		settle()
		want := []string{`{"n":7}`}
		for _, v := range append(here, there) {
			require.Equal(t, want, v.of("left"), "what does not change is not shown again")
		}
		require.EqualValues(t, 10, shows[0].asked[1].Load()-before)
		require.Zero(t, shows[0].asked[2].Load(), "nobody is in the other room")

		late := one.viewer(1, 13)
		settle()
		require.Equal(t, want, late.of("left"), "who comes later need not wait for a change")

		shows[0].value.Store(6)
		shows[0].value.Store(5)
		time.Sleep(showEvery)
		settle()
		want = append(want, `{"n":5}`)
		for _, v := range append(here, late) {
			require.Equal(t, want, v.of("left"))
		}
		require.Empty(t, elsewhere(), "it went through Redis")
		balanced(t, one, two)
	})
}

// A socket that could not take the last one is shown it again: there may be no other.
func TestShowIsNotLost(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		var s counting
		s.value.Store(3)
		full := func(h *Hub) {
			h.policy = func(q []item, _, _ int, it item) ([]item, int, outcome) {
				if !it.keep {
					return q, 0, dropped
				}
				return append(q, it), 0, taken
			}
		}
		one := start(t, b.Client(), "one", s.into, full)
		v := one.viewer(1, 10)
		time.Sleep(heartbeat - 2*showEvery)
		settle()
		require.Empty(t, v.of("left"))
		time.Sleep(3 * showEvery)
		settle()
		require.Equal(t, []string{`{"n":3}`}, v.of("left"), fmt.Sprint(v.of("sampled")))
		balanced(t, one)
	})
}
