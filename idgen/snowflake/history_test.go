package snowflake

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A history is random: processes come and go, are killed, paused beyond their lease
// and go on as if nothing had been, lose their lease, and have clocks that jump by up
// to 5 s. There are more processes than worker ids.
type history struct {
	rng *rand.Rand
	// zombies goes on with leases that are over, as a process does that was paused
	// after it had looked at its lease; without the ceiling it makes duplicates.
	ceilings bool
	live     []*Snowflake
	zombies  []*Snowflake
	seen     map[int64]bool
	twice    int
}

func (h *history) pick(from []*Snowflake) int {
	if len(from) == 0 {
		return -1
	}
	return h.rng.IntN(len(from))
}

func (h *history) ids(s *Snowflake, n int) {
	for range n {
		id, ok := s.TryNext()
		if !ok {
			return
		}
		if h.seen[id] {
			h.twice++
		}
		h.seen[id] = true
	}
}

func (h *history) run(t *testing.T, b *redistest.Env, steps int) {
	opts := Options{Workers: 3, TTL: 2 * time.Second}
	layout := virtual
	layout.SequenceBits = 3 // ids are scarce, which makes duplicates likely
	skews := []int64{0, 0, -5_000_000, 5_000_000, -50_000, h.rng.Int64N(10_000_000) - 5_000_000}
	jump := func(w *Worker) { w.setClock(skews[h.rng.IntN(len(skews))]) }
	for range steps {
		switch h.rng.IntN(12) {
		case 0, 1: // a process starts
			w, err := LeaseWorker(t.Context(), b.Client(), opts)
			if err != nil {
				require.ErrorIs(t, err, ErrNoWorker)
				continue
			}
			jump(w)
			s, err := New(layout, w)
			require.NoError(t, err)
			h.live = append(h.live, s)
		case 2: // one ends
			if i := h.pick(h.live); i >= 0 {
				require.NoError(t, h.live[i].w.Close(context.Background()))
				h.live = append(h.live[:i], h.live[i+1:]...)
			}
		case 3: // one is paused, or killed
			if i := h.pick(h.live); i >= 0 {
				s := h.live[i]
				s.w.group.Stop()
				h.live = append(h.live[:i], h.live[i+1:]...)
				h.zombies = append(h.zombies, s)
			}
		case 4: // a clock is set
			if i := h.pick(h.live); i >= 0 {
				jump(h.live[i].w)
			}
		case 5: // a lease is taken away
			if i := h.pick(h.live); i >= 0 && h.rng.IntN(3) == 0 {
				w := h.live[i].w
				key, slot := w.key, fmt.Sprint(w.ID())
				was := b.Client().HGet(t.Context(), key, slot).Val()
				var token string
				var ends, ceiling, floor int64
				_, err := fmt.Sscan(was, &token, &ends, &ceiling, &floor)
				require.NoError(t, err)
				require.NoError(t, b.Client().HSet(t.Context(), key, slot, fmt.Sprintf("- 0 %d %d", ceiling, floor)).Err())
			}
		case 6: // a paused one goes on where it was
			if i := h.pick(h.zombies); i >= 0 {
				s := h.zombies[i]
				l := s.w.lease.Load()
				l.until.Store(math.MaxInt64)
				if !h.ceilings {
					l.ceiling.Store(math.MaxInt64 / 2)
				}
				h.ids(s, 20)
			}
		case 7, 8:
			time.Sleep(time.Duration(h.rng.Int64N(int64(3 * time.Second))))
		default:
			if i := h.pick(h.live); i >= 0 {
				h.ids(h.live[i], 1+h.rng.IntN(50))
			}
			time.Sleep(time.Duration(h.rng.Int64N(int64(20 * time.Millisecond))))
		}
	}
	for _, s := range h.live {
		_ = s.w.Close(context.Background())
	}
}

func TestHistories(t *testing.T) {
	t.Parallel()
	rounds := 40
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		rounds = 4000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ids := 0
	for round := range rounds {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			h := &history{rng: rand.New(rand.NewPCG(seed, uint64(round))), ceilings: true, seen: map[int64]bool{}}
			h.run(t, b, 400)
			require.Zero(t, h.twice, "seed %d round %d", seed, round)
			ids += len(h.seen)
		})
	}
	require.Greater(t, ids, rounds*500)
}

// Negative control: leases alone do not make ids unique.
func TestHistoriesCatchMissingCeilings(t *testing.T) {
	for round := range 40 {
		caught := false
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			h := &history{rng: rand.New(rand.NewPCG(1, uint64(round))), seen: map[int64]bool{}}
			h.run(t, b, 400)
			caught = h.twice > 0
		})
		if caught {
			return
		}
	}
	t.Fatal("no duplicate was found without ceilings")
}
