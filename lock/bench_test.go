package lock

import (
	"context"
	"testing"
	"time"

	"github.com/spillway-go/spillway/internal/redistest"
)

func BenchmarkUncontended(b *testing.B) {
	for name, opts := range map[string]Options{"plain": {}, "linger": {Linger: 10 * time.Millisecond}} {
		b.Run(name, func(b *testing.B) {
			l := open(b, redistest.Shared(b).Client(), opts)
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				_, s, err := l.Lock(ctx, "a")
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Unlock(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkContended(b *testing.B) {
	l := open(b, redistest.Shared(b).Client(), Options{})
	b.SetParallelism(16)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := l.Do(context.Background(), "a", func(context.Context, *Lease) error { return nil }); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
