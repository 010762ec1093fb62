package sqltest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/shorturl"
)

// eachLinkStore runs f on the store of every database, and on the one in memory.
func eachLinkStore(t *testing.T, f func(t *testing.T, s shorturl.Store)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { f(t, shorturl.MemoryStore()) })
	Each(t, func(t *testing.T, db Database) {
		for range 2 { // Migrate twice is no error
			require.NoError(t, shorturl.Migrate(t.Context(), db.DB, db.Dialect))
		}
		s, err := shorturl.SQLStore(db.DB, db.Dialect)
		require.NoError(t, err)
		f(t, s)
	})
}

func TestLinkStore(t *testing.T) {
	eachLinkStore(t, func(t *testing.T, s shorturl.Store) {
		ctx := t.Context()
		now := time.Now().UTC().Truncate(time.Millisecond)
		full := shorturl.Link{
			Code: "aBc", URL: "https://example.com/" + strings.Repeat("x", 2000), Owner: "名前", Created: now,
			Expires: now.Add(time.Hour), MaxClicks: 3, Permanent: true, PassQuery: true,
		}
		got, err := s.Insert(ctx, full, "")
		require.NoError(t, err)
		require.Equal(t, full, got)
		got, err = s.Get(ctx, "aBc")
		require.NoError(t, err)
		require.Equal(t, full, got)
		_, err = s.Insert(ctx, full, "")
		require.ErrorIs(t, err, shorturl.ErrTaken)
		for _, other := range []string{"abc", "ABC"} { // case counts
			_, err = s.Get(ctx, other)
			require.ErrorIs(t, err, shorturl.ErrNotFound, other)
		}
		_, err = s.Insert(ctx, shorturl.Link{Code: "abc", URL: "https://example.com/", Created: now}, "")
		require.NoError(t, err)

		// Digests: the first one wins, whatever its code; no digest is no digest.
		one := shorturl.Link{Code: "one", URL: "https://example.com/1", Owner: "o", Created: now}
		_, err = s.Find(ctx, "d1")
		require.ErrorIs(t, err, shorturl.ErrNotFound)
		_, err = s.Insert(ctx, one, "d1")
		require.NoError(t, err)
		got, err = s.Insert(ctx, shorturl.Link{Code: "two", URL: one.URL, Owner: "o", Created: now}, "d1")
		require.NoError(t, err)
		require.Equal(t, "one", got.Code)
		_, err = s.Get(ctx, "two")
		require.ErrorIs(t, err, shorturl.ErrNotFound)
		_, err = s.Insert(ctx, shorturl.Link{Code: "one", URL: one.URL, Created: now}, "d2")
		require.ErrorIs(t, err, shorturl.ErrTaken)

		// Update keeps the digest while others may be given the link, and no longer.
		one.Permanent = true
		for range 2 { // the second one changes nothing and is no error
			require.NoError(t, s.Update(ctx, one))
		}
		got, err = s.Find(ctx, "d1")
		require.NoError(t, err)
		require.Equal(t, one, got)
		for i, change := range []func(l *shorturl.Link){
			func(l *shorturl.Link) { l.URL = "https://example.org/" },
			func(l *shorturl.Link) { l.Disabled = true },
			func(l *shorturl.Link) { l.Expires = now.Add(time.Hour) },
			func(l *shorturl.Link) { l.MaxClicks = 5 },
		} {
			l := shorturl.Link{Code: fmt.Sprintf("u%02d", i), URL: "https://example.com/u", Created: now}
			digest := fmt.Sprintf("u%d", i)
			_, err = s.Insert(ctx, l, digest)
			require.NoError(t, err)
			change(&l)
			require.NoError(t, s.Update(ctx, l))
			got, err = s.Get(ctx, l.Code)
			require.NoError(t, err)
			require.Equal(t, l, got)
			_, err = s.Find(ctx, digest)
			require.ErrorIs(t, err, shorturl.ErrNotFound, i)
		}
		require.ErrorIs(t, s.Update(ctx, shorturl.Link{Code: "none", URL: "https://example.com/"}), shorturl.ErrNotFound)

		// Count stops at the end.
		for want := range int64(3) {
			got, err = s.Count(ctx, "aBc", now)
			require.NoError(t, err)
			require.Equal(t, want+1, got.Clicks)
		}
		_, err = s.Count(ctx, "aBc", now)
		require.ErrorIs(t, err, shorturl.ErrGone)
		full.MaxClicks = 9
		require.NoError(t, s.Update(ctx, full))
		_, err = s.Count(ctx, "aBc", now.Add(time.Hour))
		require.ErrorIs(t, err, shorturl.ErrGone)
		got, err = s.Count(ctx, "aBc", now.Add(time.Hour-time.Millisecond))
		require.NoError(t, err)
		require.EqualValues(t, 4, got.Clicks, "Update keeps the clicks")
		full.Disabled = true
		require.NoError(t, s.Update(ctx, full))
		_, err = s.Count(ctx, "aBc", now)
		require.ErrorIs(t, err, shorturl.ErrGone)
		full.Disabled = false // as one who read the link before it was disabled
		require.NoError(t, s.Update(ctx, full))
		got, err = s.Get(ctx, "aBc")
		require.NoError(t, err)
		require.True(t, got.Disabled && got.Permanent && got.PassQuery)
		_, err = s.Count(ctx, "none", now)
		require.ErrorIs(t, err, shorturl.ErrNotFound)

		require.NoError(t, s.Delete(ctx, "one"))
		require.NoError(t, s.Delete(ctx, "one"))
		_, err = s.Get(ctx, "one")
		require.ErrorIs(t, err, shorturl.ErrNotFound)
		_, err = s.Find(ctx, "d1")
		require.ErrorIs(t, err, shorturl.ErrNotFound)
	})
}

func TestLinkStoreList(t *testing.T) {
	eachLinkStore(t, func(t *testing.T, s shorturl.Store) {
		want := []string{"0", "9", "A", "Z", "_", "a", "b", "z"} // byte by byte, in every database
		for _, i := range rand.Perm(len(want)) {
			_, err := s.Insert(t.Context(), shorturl.Link{Code: want[i], URL: "https://example.com/", Owner: "o", Created: time.Now()}, "")
			require.NoError(t, err)
			_, err = s.Insert(t.Context(), shorturl.Link{Code: want[i] + "-other", URL: "https://example.com/", Owner: "O", Created: time.Now()}, "")
			require.NoError(t, err)
		}
		var got []string
		for after := ""; ; {
			page, err := s.List(t.Context(), "o", after, 3)
			require.NoError(t, err)
			for _, l := range page {
				require.Equal(t, "o", l.Owner)
				got = append(got, l.Code)
				after = l.Code
			}
			if len(page) < 3 {
				break
			}
		}
		require.Equal(t, want, got)
	})
}

// An owner is its bytes: MySQL would take one for another that has spaces behind it.
func TestLinkStoreOwners(t *testing.T) {
	eachLinkStore(t, func(t *testing.T, s shorturl.Store) {
		p, err := shorturl.New(shorturl.Options{Store: s, Key: []byte("k"), Codes: shorturl.Random})
		require.NoError(t, err)
		owners := []string{"", " ", "ann", "ann ", "ann  ", " ann", "Ann", "ann\t", "ánn", "á", "á "}
		for _, owner := range owners {
			_, err := p.Shorten(t.Context(), shorturl.Request{URL: "https://example.com", Owner: owner})
			require.NoError(t, err)
		}
		for _, owner := range owners {
			links, err := p.List(t.Context(), owner, "", 100)
			require.NoError(t, err)
			require.Len(t, links, 1, "%q", owner)
			require.Equal(t, owner, links[0].Owner)
		}
		require.NoError(t, p.Close(t.Context()))
	})
}

// naiveLinks looks for a link and then inserts one, with nothing that keeps two from
// doing so at the same time: the first to insert waits until another has looked as well.
type naiveLinks struct {
	shorturl.Store
	inserts *atomic.Int64
	second  chan struct{}
}

func (n naiveLinks) Insert(ctx context.Context, l shorturl.Link, _ string) (shorturl.Link, error) {
	switch n.inserts.Add(1) {
	case 1:
		<-n.second
	case 2:
		close(n.second)
	}
	return n.Store.Insert(ctx, l, "")
}

func TestNaiveLinksAreCaught(t *testing.T) {
	s, err := shorturl.New(shorturl.Options{Store: naiveLinks{shorturl.MemoryStore(), new(atomic.Int64), make(chan struct{})}, Key: []byte("k"), Codes: shorturl.Random})
	require.NoError(t, err)
	var codes sync.Map
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			l, err := s.Shorten(t.Context(), shorturl.Request{URL: "https://example.com", OneToOne: true})
			if err != nil {
				t.Error(err)
			}
			codes.Store(l.Code, true)
		})
	}
	wg.Wait()
	n := 0
	codes.Range(func(any, any) bool { n++; return true })
	require.Greater(t, n, 1)
}

// Of those who ask for one link at the same time, all get the winner's; of those who
// want its last clicks, as many as there are.
func TestLinkRaces(t *testing.T) {
	eachLinkStore(t, func(t *testing.T, s shorturl.Store) {
		services := make([]*shorturl.Service, 3)
		for i := range services {
			var err error
			services[i], err = shorturl.New(shorturl.Options{Store: s, Key: []byte("k"), Codes: shorturl.Random})
			require.NoError(t, err)
		}
		for round := range 10 {
			var codes sync.Map
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					l, err := services[i%3].Shorten(t.Context(), shorturl.Request{URL: fmt.Sprintf("https://example.com/%d", round), Owner: "o", OneToOne: true})
					if err != nil {
						t.Error(err)
					}
					codes.Store(l.Code, true)
				})
			}
			wg.Wait()
			n := 0
			codes.Range(func(any, any) bool { n++; return true })
			require.Equal(t, 1, n)
		}
		links, err := s.List(t.Context(), "o", "", 100)
		require.NoError(t, err)
		require.Len(t, links, 10)

		l, err := services[0].Shorten(t.Context(), shorturl.Request{URL: "https://example.com", MaxClicks: 20})
		require.NoError(t, err)
		var through atomic.Int64
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				for range 5 {
					if _, err := services[i%3].Resolve(context.WithoutCancel(t.Context()), l.Code); err == nil {
						through.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 20, through.Load())
		for _, p := range services {
			require.NoError(t, p.Close(t.Context()))
		}
	})
}
