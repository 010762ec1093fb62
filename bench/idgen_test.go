//go:build unix

package bench

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	bwmarrin "github.com/bwmarrin/snowflake"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"github.com/rs/xid"
	"github.com/segmentio/ksuid"
	"github.com/sony/sonyflake/v2"
	"github.com/speps/go-hashids/v2"
	"github.com/sqids/sqids-go"
	yitter "github.com/yitter/idgenerator-go/idgen"

	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/idgen/snowflake"
	"github.com/spillway-go/spillway/shorturl"
)

// keep holds a result, so that making it is not optimised away.
var keep any

// BenchmarkID makes ids, one after the other, from one goroutine: what an id costs
// in CPU, and, where a layout makes it wait, in time.
func BenchmarkID(b *testing.B) {
	b.Run("spillway-segment", func(b *testing.B) {
		store, err := idgen.RedisStore(newClient(b), idgen.RedisOptions{})
		if err != nil {
			b.Fatal(err)
		}
		s, err := idgen.NewSegment(store, "order", idgen.Options{MinStep: 1_000_000})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close(b.Context())
		ctx := b.Context()
		numbers(b, func() (int64, error) { return s.Next(ctx) })
	})
	for _, row := range []struct {
		name   string
		layout snowflake.Layout
	}{{"spillway-snowflake", snowflake.Dense}, {"spillway-snowflake-classic", snowflake.Classic}} {
		b.Run(row.name, func(b *testing.B) {
			w, err := snowflake.LeaseWorker(b.Context(), newClient(b), snowflake.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close(b.Context())
			s, err := snowflake.New(row.layout, w)
			if err != nil {
				b.Fatal(err)
			}
			ctx := b.Context()
			numbers(b, func() (int64, error) { return s.Next(ctx) })
		})
	}
	b.Run("bwmarrin", func(b *testing.B) { bwmarrinIDs(b) })
	// The most sequence bits that leave as many workers as the layout above has.
	b.Run("bwmarrin-dense", func(b *testing.B) {
		node, step := bwmarrin.NodeBits, bwmarrin.StepBits
		bwmarrin.NodeBits, bwmarrin.StepBits = 6, 16
		defer func() { bwmarrin.NodeBits, bwmarrin.StepBits = node, step }()
		bwmarrinIDs(b)
	})
	b.Run("sonyflake", func(b *testing.B) { sonyflakeIDs(b, sonyflake.Settings{}) })
	b.Run("sonyflake-dense", func(b *testing.B) {
		sonyflakeIDs(b, sonyflake.Settings{BitsSequence: 16, BitsMachineID: 6, TimeUnit: time.Millisecond})
	})
	b.Run("yitter", func(b *testing.B) { yitterIDs(b, 6) })
	b.Run("yitter-dense", func(b *testing.B) { yitterIDs(b, 16) })
	b.Run("xid", func(b *testing.B) {
		spin(b, func() {
			var id xid.ID
			for range b.N {
				id = xid.New()
			}
			keep = id
		})
	})
	b.Run("ulid", func(b *testing.B) {
		spin(b, func() {
			var id ulid.ULID
			for range b.N {
				id = ulid.Make()
			}
			keep = id
		})
	})
	b.Run("ksuid", func(b *testing.B) {
		spin(b, func() {
			var id ksuid.KSUID
			for range b.N {
				id = ksuid.New()
			}
			keep = id
		})
	})
	b.Run("uuidv7", func(b *testing.B) {
		spin(b, func() {
			var id uuid.UUID
			for range b.N {
				id, _ = uuid.NewV7()
			}
			keep = id
		})
	})
}

func bwmarrinIDs(b *testing.B) {
	n, err := bwmarrin.NewNode(1)
	if err != nil {
		b.Fatal(err)
	}
	numbers(b, func() (int64, error) { return n.Generate().Int64(), nil })
}

func sonyflakeIDs(b *testing.B, settings sonyflake.Settings) {
	settings.MachineID = func() (int, error) { return 1, nil }
	s, err := sonyflake.New(settings)
	if err != nil {
		b.Fatal(err)
	}
	numbers(b, s.NextID)
}

func yitterIDs(b *testing.B, sequenceBits byte) {
	o := yitter.NewIdGeneratorOptions(1)
	o.SeqBitLength = sequenceBits
	g := yitter.NewDefaultIdGenerator(o)
	numbers(b, func() (int64, error) { return g.NewLong(), nil })
}

// numbers makes b.N ids and demands that they increase.
func numbers(b *testing.B, next func() (int64, error)) {
	b.Helper()
	if _, err := next(); err != nil { // what is set up with the first id is in nobody's time
		b.Fatal(err)
	}
	runtime.GC()
	spin(b, func() {
		last := int64(0)
		for range b.N {
			id, err := next()
			if err != nil || id <= last {
				b.Fatal(id, last, err)
			}
			last = id
		}
	})
}

// BenchmarkCode makes a code of seven or more characters from an id.
func BenchmarkCode(b *testing.B) {
	b.Run("spillway", func(b *testing.B) {
		p, err := idgen.NewPermuter([]byte("key"), 62*62*62*62*62*62*62)
		if err != nil {
			b.Fatal(err)
		}
		spin(b, func() {
			var code string
			for i := range b.N {
				n, err := p.Permute(int64(i))
				if err != nil {
					b.Fatal(err)
				}
				code = base62(n)
			}
			keep = code
		})
	})
	b.Run("sqids", func(b *testing.B) {
		s, err := sqids.New(sqids.Options{MinLength: 7})
		if err != nil {
			b.Fatal(err)
		}
		spin(b, func() {
			var code string
			for i := range b.N {
				if code, err = s.Encode([]uint64{uint64(i)}); err != nil {
					b.Fatal(err)
				}
			}
			keep = code
		})
	})
	b.Run("hashids", func(b *testing.B) {
		data := hashids.NewData()
		data.Salt, data.MinLength = "key", 7
		h, err := hashids.NewWithData(data)
		if err != nil {
			b.Fatal(err)
		}
		spin(b, func() {
			var code string
			for i := range b.N {
				if code, err = h.EncodeInt64([]int64{int64(i)}); err != nil {
					b.Fatal(err)
				}
			}
			keep = code
		})
	})
}

// base62 is what shorturl does with the number.
func base62(n int64) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b [7]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = alphabet[n%62]
		n /= 62
	}
	return string(b[:])
}

// BenchmarkRedirect follows links over HTTP, 16 connections that are kept alive, with
// a server that redirects what it looks up, and ones that redirect everything to one
// address.
func BenchmarkRedirect(b *testing.B) {
	const links = 10_000
	s, err := shorturl.New(shorturl.Options{Store: shorturl.MemoryStore(), Codes: shorturl.Random, Key: []byte("key"), LocalTTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	paths := make([]string, links)
	for i := range paths {
		l, err := s.Shorten(b.Context(), shorturl.Request{URL: "https://example.com/a/page/somewhere"})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Resolve(b.Context(), l.Code); err != nil {
			b.Fatal(err)
		}
		paths[i] = "/" + l.Code
	}
	for _, row := range []struct {
		name    string
		handler http.Handler
	}{
		{"spillway", s.Handler()},
		{"bare-net-http", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://example.com/a/page/somewhere")
			w.WriteHeader(http.StatusFound)
		})},
		// What the standard library offers: it writes a small page beside the address.
		{"net-http-redirect", http.RedirectHandler("https://example.com/a/page/somewhere", http.StatusFound)},
	} {
		b.Run(row.name, func(b *testing.B) {
			server := httptest.NewServer(row.handler)
			defer server.Close()
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			defer transport.CloseIdleConnections()
			follow := func(i int) error {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+paths[i%links], nil)
				if err != nil {
					return err
				}
				res, err := transport.RoundTrip(r)
				if err != nil {
					return err
				}
				if res.StatusCode != http.StatusFound {
					b.Error(res.Status)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					return err
				}
				return res.Body.Close()
			}
			if _, err := drive(16, 1000, follow); err != nil {
				b.Fatal(err)
			}
			spin(b, func() {
				if _, err := drive(16, b.N, follow); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}
