package hotkey

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func newTestCopies(t testing.TB, opts CopiesOptions) *Copies {
	t.Helper()
	c, err := NewCopies(opts)
	require.NoError(t, err)
	return c
}

func TestCopiesLieInDifferentSlots(t *testing.T) {
	for _, n := range []int{2, 6, 64} {
		c := newTestCopies(t, CopiesOptions{Copies: n})
		for i := range 200 {
			taken := map[int]string{}
			for _, name := range c.WriteKeys(fmt.Sprint("room:", i), nil) {
				slot := slotOf(name)
				assert.Empty(t, taken[slot], name)
				taken[slot] = name
			}
			require.Len(t, taken, n)
		}
	}
}

// The slots are those that a real Cluster computes.
func TestSlotsAreRedissSlots(t *testing.T) {
	rdb := redistest.Cluster(t, 1, 0).Client()
	c := newTestCopies(t, CopiesOptions{Prefix: "p{}%"})
	for _, key := range []string{"room:42", "", "{tag}:k", "a}b{c", "商品", "\n", strings.Repeat("long", 100)} {
		for _, name := range c.WriteKeys(key, nil) {
			want, err := rdb.ClusterKeySlot(t.Context(), name).Result()
			require.NoError(t, err)
			assert.Equal(t, int(want), slotOf(name), name)
		}
	}
	assert.Equal(t, 12739, slotOf("{123456789}"), "the check value of the Cluster specification, 0x31C3")
}

func TestCopiesLieOnDifferentMasters(t *testing.T) {
	for masters, want := range map[int][]int{1: {6}, 3: {2, 2, 2}, 4: {1, 1, 2, 2}, 6: {1, 1, 1, 1, 1, 1}, 10: {1, 1, 1, 1, 1, 1}} {
		on := func(slot int) string { return fmt.Sprint(slot * masters / 16384) }
		c := newTestCopies(t, CopiesOptions{Master: on})
		for i := range 50 {
			counts := map[string]int{}
			for _, name := range c.WriteKeys(fmt.Sprint("room:", i), nil) {
				counts[on(slotOf(name))]++
			}
			var got []int
			for n := 1; n <= 6; n++ {
				for _, count := range counts {
					if count == n {
						got = append(got, n)
					}
				}
			}
			assert.Equal(t, want, got, "%d masters", masters)
		}
	}
	// A master with hardly a slot ends the search, not the process.
	lonely := newTestCopies(t, CopiesOptions{Copies: 3, Master: func(slot int) string { return fmt.Sprint(min(slot, 2)) }})
	assert.Len(t, lonely.WriteKeys("k", nil), 3)
}

// Every process gets the same names, and two keys never share one.
func TestCopyNames(t *testing.T) {
	c := newTestCopies(t, CopiesOptions{Copies: 2})
	assert.Equal(t, []string{"spillway:hotkey1:{room:42#0}:copy", "spillway:hotkey1:{room:42#1}:copy"}, c.WriteKeys("room:42", nil))
	assert.Equal(t, []string{"kept", "spillway:hotkey1:{a%7Bb#0}:copy", "spillway:hotkey1:{a%7Bb#1}:copy"}, c.WriteKeys("a{b", []string{"kept"}))
	all := map[string]string{}
	for _, k := range []string{"a", "a#1", "a#1#1", "a#", "", "#", "#0", strings.Repeat("a", 300), strings.Repeat("a", 301)} {
		for _, name := range c.WriteKeys(k, nil) {
			assert.NotContains(t, all, name)
			all[name] = k
		}
	}
}

func TestReadKeyIsAnyAndStickyKeyOne(t *testing.T) {
	c := newTestCopies(t, CopiesOptions{})
	names := c.WriteKeys("k", nil)
	random, sticky := map[string]int{}, map[string]int{}
	for i := range 6000 {
		random[c.ReadKey("k")]++
		caller := fmt.Sprint("caller-", i)
		sticky[c.StickyKey("k", caller)]++
		assert.Equal(t, c.StickyKey("k", caller), c.StickyKey("k", caller))
	}
	for _, name := range names {
		assert.InDelta(t, 1000, random[name], 200)
		assert.InDelta(t, 1000, sticky[name], 200)
	}
	assert.Len(t, random, 6)
	assert.Len(t, sticky, 6)
}

func TestAcceptRefusesOlderVersions(t *testing.T) {
	c := newTestCopies(t, CopiesOptions{Keys: 2})
	assert.True(t, c.Accept("k", 7))
	assert.True(t, c.Accept("k", 7), "the same again")
	assert.True(t, c.Accept("k", 9))
	assert.False(t, c.Accept("k", 8))
	assert.True(t, c.Accept("other", 1))
	// Two other keys at most are newer than k, which is remembered still.
	c.ReadKey("second")
	assert.False(t, c.Accept("k", 8))
	// With a third and a fourth it is forgotten: memory is bounded.
	for i := range 10 {
		c.ReadKey(fmt.Sprint(i))
	}
	assert.True(t, c.Accept("k", 8))
	g := c.recent.Load()
	assert.LessOrEqual(t, len(g.young)+len(g.old), 4)
}

// Of versions that grow, read by many, nobody sees one go back.
func TestAcceptFromManyGoroutines(t *testing.T) {
	c := newTestCopies(t, CopiesOptions{Keys: 1})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng, newest := rand.New(rand.NewPCG(uint64(g), 0)), int64(0)
			for i := range int64(5000) {
				v := max(1, i-rng.Int64N(10))
				if c.Accept("k", v) {
					if v < newest {
						t.Errorf("accepted %d after %d", v, newest)
					}
					newest = v
				}
			}
		})
	}
	wg.Wait()
}

func TestTTLIsSpread(t *testing.T) {
	c := newTestCopies(t, CopiesOptions{TTL: time.Second})
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		ttl := c.TTL()
		low, high = min(low, ttl), max(high, ttl)
	}
	assert.Greater(t, low, 900*time.Millisecond-1)
	assert.LessOrEqual(t, high, time.Second)
	assert.Greater(t, high-low, 50*time.Millisecond)
}

func TestCopiesAllocateNothing(t *testing.T) {
	c := newTestCopies(t, CopiesOptions{})
	dst := make([]string, 0, 6)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c.ReadKey("k")
		c.StickyKey("k", "me")
		c.WriteKeys("k", dst)
		c.Accept("k", 1)
	}))
}

func TestCopiesInvalid(t *testing.T) {
	for want, opts := range map[string]CopiesOptions{
		"CopiesOptions.Copies 1":  {Copies: 1},
		"CopiesOptions.Copies 65": {Copies: 65},
		"CopiesOptions.TTL 1ms":   {TTL: time.Millisecond},
		"CopiesOptions.TTL 2h":    {TTL: 2 * time.Hour},
		"CopiesOptions.Keys -1":   {Keys: -1},
		"CopiesOptions.Keys 5000": {Keys: 5000},
	} {
		_, err := NewCopies(opts)
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
}

func BenchmarkReadKey(b *testing.B) {
	c := newTestCopies(b, CopiesOptions{})
	b.ReportAllocs()
	for b.Loop() {
		c.ReadKey("room:42")
	}
}
