package cache

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newTestLocal(t *testing.T, size int) *local[int] {
	t.Helper()
	l, err := newLocal[int](size)
	require.NoError(t, err)
	t.Cleanup(l.close)
	return l
}

func item0(l *local[int], name string, value int, version int64) (uint64, *item[int]) {
	return l.hash(name), &item[int]{name: name, value: value, version: version, expires: l.now() + instant(time.Hour), hard: l.now() + instant(time.Hour)}
}

// What was put is there, whatever ristretto does with it: its setters drop most
// under this load, and an update of a key that is not there yet is lost.
func TestPutIsVisible(t *testing.T) {
	l := newTestLocal(t, 100)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range overlaySize / 16 { // in all, what the overlay has room for
				name := fmt.Sprint(g, "-", i)
				for v := range 2 {
					hash, it := item0(l, name, v, int64(v))
					l.put(hash, it, l.mark(hash))
					// Puts of other names of the stripe do not make the mark old.
					if got := l.get(name, hash); got == nil || got.value != v {
						t.Errorf("%s: %v after %d was put", name, got, v)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestMarks(t *testing.T) {
	l := newTestLocal(t, 100)
	hash, it := item0(l, "a", 1, 10)
	for name, happens := range map[string]func(){
		"a delete begins": func() { l.bump(hash) },
		"a delete":        func() { l.clear("a", hash) },
		"a flush":         l.flush,
	} {
		m := l.mark(hash)
		happens()
		l.put(hash, it, m)
		require.Nil(t, l.get("a", hash), name)
	}
	l.put(hash, it, l.mark(hash))
	require.Equal(t, 1, l.get("a", hash).value)

	_, older := item0(l, "a", 0, 9)
	l.put(hash, older, l.mark(hash))
	require.Equal(t, 1, l.get("a", hash).value, "an older version")
	_, same := item0(l, "a", 1, 10)
	l.put(hash, same, l.mark(hash))
	require.Same(t, same, l.get("a", hash))

	l.flush()
	require.False(t, l.fresh(l.get("a", hash), l.now()))
	l.put(hash, older, l.mark(hash))
	require.Equal(t, 0, l.get("a", hash).value, "what is not fresh does not stand in the way")

	// Two writers: the one whose mark is old cannot know who was last.
	m := l.bump(hash)
	other := l.bump(hash)
	_, b := item0(l, "a", 3, 12)
	l.write(hash, b, m)
	require.Nil(t, l.get("a", hash))
	l.write(hash, b, other)
	require.Nil(t, l.get("a", hash), "the first write made it old")
	l.write(hash, b, l.bump(hash))
	require.Equal(t, 3, l.get("a", hash).value)
}

func TestPutAndCloseTogether(t *testing.T) {
	for range 20 {
		l, err := newLocal[int](100)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 200 {
					hash, it := item0(l, fmt.Sprint(g, i), i, 1)
					l.put(hash, it, l.mark(hash))
					l.clear(it.name, hash)
				}
			})
		}
		l.close()
		wg.Wait()
	}
}

// Nobody reads when ristretto is closed, which panics under a reader once in a while.
func TestGetAndCloseTogether(t *testing.T) {
	for range 20 {
		l, err := newLocal[int](100)
		require.NoError(t, err)
		hash, it := item0(l, "a", 1, 1)
		l.put(hash, it, l.mark(hash))
		var closed atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for !closed.Load() {
					l.get("a", hash)
				}
			})
		}
		require.True(t, l.hits.enter(hash))
		var over atomic.Bool
		wg.Go(func() {
			l.close()
			over.Store(true)
		})
		for !over.Load() && l.hits.enter(hash) { // until it is shut
			l.hits.leave(hash)
			runtime.Gosched()
		}
		_, ok := l.store.Get(hash)
		require.True(t, ok, "closed under a reader")
		l.hits.leave(hash)
		l.close()
		require.Same(t, it, l.get("a", hash), "in the overlay")
		closed.Store(true)
		wg.Wait()
	}
}

// Hot keys stay, however many others pass through a small level.
func TestHotKeysArePinned(t *testing.T) {
	d := newDB()
	c := open(t, nil, d, Options{Local: 16, TTL: time.Hour})
	ctx := t.Context()
	require.NoError(t, c.Set(ctx, "star", "x"))
	for i := range 64 * hotRound * 3 {
		if _, err := c.Get(ctx, "star"); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			require.NoError(t, c.Set(ctx, fmt.Sprint("other", i), "y"))
		}
	}
	require.Equal(t, []string{"star"}, c.Hot())
	for i := range 3 * overlaySize {
		require.NoError(t, c.Set(ctx, fmt.Sprint("flood", i), "y"))
	}
	require.Equal(t, "x", get(t, c, "star"))
	require.NoError(t, c.Set(ctx, "star", "z"))
	require.Equal(t, "z", get(t, c, "star"))
	require.NoError(t, c.Delete(ctx, "star"))
	_, err := c.Get(ctx, "star")
	require.ErrorIs(t, err, ErrNotFound)
}

func TestHistogram(t *testing.T) {
	var h histogram
	require.Zero(t, h.quantile(0.99))
	for i := range 1000 {
		h.add(time.Duration(i) * time.Millisecond)
	}
	p := h.quantile(0.99)
	require.GreaterOrEqual(t, p, 990*time.Millisecond)
	require.LessOrEqual(t, p, 990*time.Millisecond*5/4)
	h.add(1 << 62)
}
