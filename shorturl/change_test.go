package shorturl

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A gate lets all pass; once shut it holds the next who comes, until it is opened.
type gate struct{ at atomic.Pointer[chan struct{}] }

func (g *gate) pass() {
	if c := g.at.Swap(nil); c != nil {
		<-*c
	}
}

func (g *gate) shut() (open func()) {
	c := make(chan struct{})
	g.at.Store(&c)
	return sync.OnceFunc(func() { close(c) })
}

// A slow Store reads, and then keeps the answer at a gate.
type slow struct {
	Store
	read gate
}

func (s *slow) Get(ctx context.Context, code string) (Link, error) {
	l, err := s.Store.Get(ctx, code)
	s.read.pass()
	return l, err
}

// Who comes after a change sees it, though looks that read before it are under way; and
// those do not put the old link back.
func TestChangeDuringLook(t *testing.T) {
	const before, after = "https://example.com/x", "https://example.org/"
	for name, c := range map[string]struct {
		change func(ctx context.Context, s *Service) error
		url    string
		err    error
	}{
		"disable": {func(ctx context.Context, s *Service) error { return s.Disable(ctx, "the-link") }, "", ErrGone},
		"delete":  {func(ctx context.Context, s *Service) error { return s.Delete(ctx, "the-link") }, "", ErrNotFound},
		"update": {func(ctx context.Context, s *Service) error {
			_, err := s.Update(ctx, "the-link", Request{URL: after})
			return err
		}, after, nil},
		"shorten": {func(ctx context.Context, s *Service) error {
			_, err := s.Shorten(ctx, Request{URL: after, Alias: "the-link"})
			return err
		}, after, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slow{Store: MemoryStore()}
				s := service(t, Options{Store: store})
				if name != "shorten" {
					shorten(t, s, Request{URL: before, Alias: "the-link"})
				}
				open := store.read.shut()
				defer open()
				early := make(chan Link, 1)
				go func() {
					l, _ := s.Resolve(t.Context(), "the-link")
					early <- l
				}()
				synctest.Wait() // the old answer is on its way
				require.NoError(t, c.change(t.Context(), s))
				for range 2 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					l, err := s.Resolve(ctx, "the-link")
					require.ErrorIs(t, err, c.err)
					require.Equal(t, c.url, l.URL)
					open()
					synctest.Wait()
				}
				require.NotEqual(t, after, (<-early).URL, "it was read before")
			})
		})
	}
}

// Links that are made do not keep others from being remembered.
func TestChangesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, cache := &spy{Store: MemoryStore(), delay: 5 * time.Millisecond}, &sharedCache{}
		s := service(t, Options{Store: store, Cache: cache})
		l := shorten(t, s, Request{})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for range 500 {
				shorten(t, s, Request{})
				time.Sleep(2 * time.Millisecond)
			}
		})
		for range 100 {
			_, err := s.Resolve(t.Context(), l.Code)
			require.NoError(t, err)
			_, err = s.Resolve(t.Context(), "unknown")
			require.ErrorIs(t, err, ErrNotFound)
		}
		require.EqualValues(t, 2, store.gets.Load())
		_, ok := cache.Get(t.Context(), l.Code)
		require.True(t, ok)
	})
}

type sharedCache struct{ sync.Map }

func (c *sharedCache) Get(_ context.Context, code string) (Link, bool) {
	l, ok := c.Load(code)
	if !ok {
		return Link{}, false
	}
	return l.(Link), true
}
func (c *sharedCache) Set(_ context.Context, l Link)         { c.Store(l.Code, l) }
func (c *sharedCache) Delete(_ context.Context, code string) { c.Map.Delete(code) }

func TestCache(t *testing.T) {
	store, cache := &spy{Store: MemoryStore()}, &sharedCache{}
	a, b := service(t, Options{Store: store, Cache: cache}), service(t, Options{Store: store, Cache: cache})
	l := shorten(t, a, Request{})
	for _, s := range []*Service{a, b, a, b} {
		_, err := s.Resolve(t.Context(), l.Code)
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, store.gets.Load())
	require.NoError(t, a.Disable(t.Context(), l.Code))
	_, ok := cache.Get(t.Context(), l.Code)
	require.False(t, ok)
	require.Equal(t, Stats{Hits: 1, Loads: 1}, a.Stats())
}

// A slowCache has gates where a server in a network takes its time.
type slowCache struct {
	sharedCache
	got, asked, landed, deleting gate
}

func (c *slowCache) Get(ctx context.Context, code string) (Link, bool) {
	l, ok := c.sharedCache.Get(ctx, code)
	c.got.pass()
	return l, ok
}

func (c *slowCache) Set(ctx context.Context, l Link) {
	c.asked.pass()
	c.sharedCache.Set(ctx, l)
	c.landed.pass()
}

func (c *slowCache) Delete(ctx context.Context, code string) {
	c.deleting.pass()
	c.sharedCache.Delete(ctx, code)
}

// An old link that reaches the Cache after the Delete of a change is not read there, and
// does not stay.
func TestCacheIsSetLate(t *testing.T) {
	for _, meanwhile := range []bool{false, true} { // somebody looks while it is there
		synctest.Test(t, func(t *testing.T) {
			cache := &slowCache{}
			s := service(t, Options{Cache: cache, Local: -1}) // each Resolve is a look
			l := shorten(t, s, Request{})
			gone := func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := s.Resolve(ctx, l.Code)
				require.ErrorIs(t, err, ErrGone)
			}
			asked := cache.asked.shut()
			defer asked()
			go func() { _, _ = s.Resolve(t.Context(), l.Code) }()
			synctest.Wait() // the old link is on its way to the Cache
			require.NoError(t, s.Disable(t.Context(), l.Code))
			gone()
			landed := cache.landed.shut()
			defer landed()
			asked()
			synctest.Wait()
			kept, _ := cache.sharedCache.Get(t.Context(), l.Code)
			require.Equal(t, l, kept, "it is there")
			if meanwhile {
				gone()
			}
			landed()
			synctest.Wait()
			kept, _ = cache.sharedCache.Get(t.Context(), l.Code)
			require.True(t, kept.Code == "" || kept.Disabled)
			gone()
			require.Empty(t, s.loads.by)
			require.Empty(t, s.loads.writing)
		})
	}
}

// A look that a change overtook before it began to write to the Cache does not begin.
func TestCacheIsNotSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, cache := &slow{Store: MemoryStore()}, &slowCache{}
		s := service(t, Options{Store: store, Cache: cache})
		l := shorten(t, s, Request{})
		open := store.read.shut()
		defer open()
		go func() { _, _ = s.Resolve(t.Context(), l.Code) }()
		synctest.Wait() // the old answer is on its way
		require.NoError(t, s.Disable(t.Context(), l.Code))
		landed := cache.landed.shut()
		defer landed()
		open()
		synctest.Wait()
		_, ok := cache.sharedCache.Get(t.Context(), l.Code)
		require.False(t, ok)
	})
}

// A look that finds the old link in the Cache before it is deleted there does not bring
// it back after.
func TestCacheIsReadBeforeDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := &slowCache{}
		s := service(t, Options{Cache: cache})
		l := shorten(t, s, Request{})
		cache.Set(t.Context(), l) // by another process
		deleting, got := cache.deleting.shut(), cache.got.shut()
		defer deleting()
		defer got()
		disabled := make(chan error, 1)
		go func() { disabled <- s.Disable(t.Context(), l.Code) }()
		synctest.Wait()
		go func() { _, _ = s.Resolve(t.Context(), l.Code) }()
		synctest.Wait() // it has the old link in its hands
		deleting()
		require.NoError(t, <-disabled)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := s.Resolve(ctx, l.Code)
			require.ErrorIs(t, err, ErrGone)
			got()
			synctest.Wait()
		}
	})
}
