package shorturl_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/shorturl"
)

// ids stands for an idgen.Segment, which has this method.
type ids struct{ n atomic.Int64 }

func (i *ids) Next(context.Context) (int64, error) { return i.n.Add(1), nil }

func Example() {
	ctx := context.Background()
	links, err := shorturl.New(shorturl.Options{
		IDs: new(ids), Store: shorturl.MemoryStore(), Key: []byte("a secret"), Domains: []string{"sho.rt"},
	})
	if err != nil {
		panic(err)
	}
	defer links.Close(ctx)

	sale, err := links.Shorten(ctx, shorturl.Request{URL: "https://example.com/sale", Owner: "ann", Alias: "big-sale"})
	fmt.Println(sale.Code, err)
	first, _ := links.Shorten(ctx, shorturl.Request{URL: "https://example.com/1", Owner: "ann", OneToOne: true})
	again, _ := links.Shorten(ctx, shorturl.Request{URL: "https://EXAMPLE.com:443/1", Owner: "ann", OneToOne: true})
	fmt.Println(len(first.Code), first.Code == again.Code)

	_, err = links.Shorten(ctx, shorturl.Request{URL: "javascript:alert(1)"})
	fmt.Println(errors.Is(err, shorturl.ErrUnsafe), errors.Is(err, shorturl.ErrInvalid))
	_, err = links.Shorten(ctx, shorturl.Request{URL: "https://example.com", Alias: "admin"})
	fmt.Println(errors.Is(err, shorturl.ErrTaken))

	sale, _ = links.Update(ctx, "big-sale", shorturl.Request{URL: "https://example.com/sale", Expires: time.Now().Add(time.Hour)})
	got, _ := links.Resolve(ctx, "big-sale")
	fmt.Println(got.URL, got == sale)
	_ = links.Disable(ctx, "big-sale")
	_, err = links.Resolve(ctx, "big-sale")
	fmt.Println(errors.Is(err, shorturl.ErrGone))
	_ = links.Delete(ctx, "big-sale")
	_, err = links.Get(ctx, "big-sale")
	fmt.Println(errors.Is(err, shorturl.ErrNotFound))
	mine, _ := links.List(ctx, "ann", "", 10)
	fmt.Println(len(mine), links.Stats().Hits, errors.Is(err, shorturl.ErrClosed))
	// Output:
	// big-sale <nil>
	// 7 true
	// true false
	// true
	// https://example.com/sale true
	// true
	// true
	// 1 0 false
}

// printer is told of clicks.
type printer struct{}

func (printer) Record(_ context.Context, clicks []shorturl.Click) error {
	for _, c := range clicks {
		fmt.Println("click", c.Code, c.Referrer)
	}
	return nil
}

// A shortener: a page that redirects, an API beside it, clicks that are counted.
func ExampleService_Handler() {
	links, err := shorturl.New(shorturl.Options{
		Store: shorturl.MemoryStore(), Codes: shorturl.Random, Key: []byte("a secret"), Clicks: printer{},
		Authenticate: func(r *http.Request) (string, bool) { // a token per owner, from wherever they are kept
			return "ann", r.Header.Get("Authorization") == "Bearer ann's token"
		},
		Ban: func(_ context.Context, u *url.URL) error {
			if strings.HasSuffix(u.Hostname(), ".evil.example") {
				return fmt.Errorf("%w: on the list", shorturl.ErrUnsafe)
			}
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", links.API()))
	mux.Handle("/", links.Handler())
	server := httptest.NewServer(mux)
	defer server.Close()

	do := func(method, path, body string) string {
		r, _ := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer ann's token")
		r.Header.Set("User-Agent", "Mozilla/5.0")
		r.Header.Set("Referer", "https://news.example/")
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			panic(err)
		}
		res.Body.Close()
		return strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")))
	}
	fmt.Println(do("POST", "/api/links", `{"url": "https://example.com/tea", "alias": "tea"}`))
	fmt.Println(do("POST", "/api/links", `{"url": "https://x.evil.example"}`))
	fmt.Println(do("GET", "/tea", ""))
	fmt.Println(do("GET", "/coffee", ""))
	_ = links.Close(context.Background()) // records what waits
	// Unordered output:
	// 201
	// 422
	// 302 https://example.com/tea
	// 404
	// click tea https://news.example/
}

// The database is the application's own, with a driver of its choice.
func ExampleSQLStore() {
	open := func(ctx context.Context, db *sql.DB) (shorturl.Store, error) {
		if err := shorturl.Migrate(ctx, db, shorturl.PostgreSQL); err != nil {
			return nil, err
		}
		return shorturl.SQLStore(db, shorturl.PostgreSQL)
	}
	_ = open
	for _, d := range []shorturl.Dialect{shorturl.MySQL, shorturl.SQLite} {
		_, err := shorturl.SQLStore(nil, d)
		fmt.Println(d, err)
	}
	// Output:
	// MySQL shorturl: invalid argument: db is nil
	// SQLite shorturl: invalid argument: db is nil
}

// bloom stands for a Bloom filter that all processes share.
type bloom map[string]bool

func (b bloom) Has(_ context.Context, key string) bool { return b[key] }
func (b bloom) Add(_ context.Context, key string)      { b[key] = true }

// redisCache stands for a cache that all processes share.
type redisCache map[string]shorturl.Link

func (c redisCache) Get(_ context.Context, code string) (shorturl.Link, bool) {
	l, ok := c[code]
	return l, ok
}
func (c redisCache) Set(_ context.Context, l shorturl.Link) { c[l.Code] = l }
func (c redisCache) Delete(_ context.Context, code string)  { delete(c, code) }

// Unknown codes are not looked up: the Guard knows which exist.
func ExampleGuard() {
	ctx := context.Background()
	var (
		guard  shorturl.Guard  = bloom{}
		cache  shorturl.Cache  = redisCache{}
		clicks shorturl.Clicks = printer{}
		source shorturl.IDs    = new(ids)
	)
	links, err := shorturl.New(shorturl.Options{
		IDs: source, Store: shorturl.MemoryStore(), Guard: guard, Cache: cache, Clicks: clicks,
		Codes: shorturl.Sequential, Key: []byte("a secret"),
	})
	if err != nil {
		panic(err)
	}
	defer links.Close(ctx)
	for range 3 {
		_, err = links.Resolve(ctx, "nothing")
	}
	fmt.Println(errors.Is(err, shorturl.ErrNotFound), links.Stats().Loads)
	_, err = shorturl.New(shorturl.Options{Store: shorturl.MemoryStore(), Codes: shorturl.Digest})
	fmt.Println(err)
	// Output:
	// true 0
	// shorturl: invalid argument: Options.Key is empty
}
