package sale

import (
	"sync"
	"testing"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqltest"
)

// An order, with its token, of 64 buyers at a time: what the parts of it take, how much
// of that is the embedded Redis, and how many a second SQL has at the end.
func BenchmarkOrder(b *testing.B) {
	for _, where := range []struct {
		name string
		cfg  func(b *testing.B) infra.Config
	}{
		{"embedded", func(*testing.B) infra.Config { return infra.Config{} }},
		{"server", func(b *testing.B) infra.Config { return infra.Config{Redis: redistest.Server(b).Addr()} }},
		{"server, MariaDB", func(b *testing.B) infra.Config {
			_, dsn := sqltest.MariaDB(b).Names()
			return infra.Config{Redis: redistest.Server(b).Addr(), DB: dsn}
		}},
		{"server, always synced", func(b *testing.B) infra.Config {
			return infra.Config{Redis: redistest.Server(b, "--appendonly", "yes", "--appendfsync", "always").Addr()}
		}},
	} {
		b.Run(where.name, func(b *testing.B) {
			sh := newShop(b, shoptest.Open(b, where.cfg(b), false), Options{})
			sh.opened(b, 1, Product{SKU: "tea", Total: maxUnits})
			c := newCrowd(1, "tea", sh)
			var token, place time.Duration
			var mu sync.Mutex
			b.SetParallelism(32) // times GOMAXPROCS
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					began := time.Now()
					id, err := sh.Token(b.Context(), 7)
					if err != nil {
						b.Error(err)
						return
					}
					between := time.Now()
					if _, err := sh.Place(b.Context(), 7, id, 1, []Line{{"tea", 1}}); err != nil {
						b.Error(err)
						return
					}
					mu.Lock()
					token, place = token+between.Sub(began), place+time.Since(between)
					c.took = append(c.took, time.Since(began))
					mu.Unlock()
				}
			})
			b.StopTimer()
			began := time.Now()
			for n := 0; n < b.N; time.Sleep(5 * time.Millisecond) {
				if err := sh.env.DB.QueryRowContext(b.Context(), "SELECT COUNT(*) FROM orders").Scan(&n); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/(b.Elapsed()+time.Since(began)).Seconds(), "written/s")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
			b.ReportMetric(float64(c.at(50).Microseconds()), "p50-µs")
			b.ReportMetric(float64(c.at(99).Microseconds()), "p99-µs")
			b.ReportMetric(float64((token / time.Duration(b.N)).Microseconds()), "token-µs")
			b.ReportMetric(float64((place / time.Duration(b.N)).Microseconds()), "place-µs")
		})
	}
}
