package stock

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// BenchmarkEncode is what the client does to 64 merged orders before go-redis
// writes them: ns/op by 64 is the share of an order.
func BenchmarkEncode(b *testing.B) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialerRetries: 1, MaxRetries: -1})
	defer rdb.Close()
	a, err := New(rdb, "sale", Options{AllowEviction: true})
	if err != nil {
		b.Fatal(err)
	}
	items := []Item{{"tea", 1}}
	batch := make([]*op, 64)
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			batch[i] = newOp('D', ':', "o-000012345", "u-000123", items)
		}
		a.arguments(batch, a.callNonce(), 0)
	}
}
