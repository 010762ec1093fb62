package snowflake

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A textbook generator: its sequence begins again in every new millisecond. If it
// resets the sequence before it looks whether the clock went back, which is the
// order in which some well-known ones do it, it repeats itself.
type textbook struct {
	last, seq  int64
	resetFirst bool
}

func (g *textbook) next(ms int64) (int64, bool) {
	if g.resetFirst && ms != g.last {
		g.seq = 0
	}
	if ms < g.last {
		if !g.resetFirst {
			return 0, false
		}
		ms = g.last
	}
	if ms != g.last {
		g.seq = 0
	} else {
		g.seq++
	}
	g.last = ms
	return ms<<12 | g.seq, true
}

// The clock steps of the other tests, on the generator that such steps break.
func TestClockStepsBreakTheTextbook(t *testing.T) {
	for _, resetFirst := range []bool{false, true} {
		g := &textbook{resetFirst: resetFirst}
		seen := map[int64]bool{}
		twice := 0
		for i := range int64(10_000) {
			ms := i / 7
			if i%1000 > 900 {
				ms -= 5
			}
			if id, ok := g.next(ms); ok {
				if seen[id] {
					twice++
				}
				seen[id] = true
			}
		}
		require.Equal(t, resetFirst, twice > 0)
	}
}

// The same steps here: in one atomic word time and sequence cannot part.
func TestClockStepsInOneWord(t *testing.T) {
	w := &Worker{base: time.Now(), opts: Options{Workers: 64}}
	l := &lease{}
	l.until.Store(1 << 62)
	l.ceiling.Store(1 << 61)
	w.lease.Store(l)
	s, err := New(Classic, w)
	require.NoError(t, err)
	l.last.Store(-1)
	seen := map[int64]bool{}
	for i := range int64(10_000) {
		if i%1000 > 900 {
			w.setClock(-5000)
		} else {
			w.setClock(i % 3 * 1000)
		}
		id, ok := s.TryNext()
		require.True(t, ok)
		require.False(t, seen[id])
		seen[id] = true
	}
}
