package coalesce

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

func echo(_ context.Context, _ string, batch []int) ([]int, error) { return batch, nil }

// roundTrip stands for a server at about 1 ms (as short as a sleep gets), whatever the
// batch.
func roundTrip(_ context.Context, _ string, batch []int) ([]int, error) {
	time.Sleep(time.Millisecond)
	return batch, nil
}

func BenchmarkLoneCaller(b *testing.B) {
	for name, ctx := range contexts(b) {
		b.Run("ctx="+name, func(b *testing.B) {
			g := New(echo, Options{})
			defer g.Close(b.Context())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Do(ctx, "lane", "", 1, 8); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDo(b *testing.B) {
	flushes := map[string]func(context.Context, string, []int) ([]int, error){"none": echo, "1ms": roundTrip}
	for trip, flush := range flushes {
		for _, goroutines := range []int{64, 256} {
			for _, ids := range []bool{false, true} {
				for name, ctx := range contexts(b) {
					b.Run(fmt.Sprintf("trip=%s/goroutines=%d/ids=%t/ctx=%s", trip, goroutines, ids, name), func(b *testing.B) {
						benchmark(b, ctx, flush, goroutines, ids)
					})
				}
			}
		}
	}
}

func benchmark(b *testing.B, ctx context.Context, flush func(context.Context, string, []int) ([]int, error), goroutines int, ids bool) {
	g := New(flush, Options{})
	defer g.Close(b.Context())
	names := make([]string, 1<<14)
	for i := range names {
		if ids {
			names[i] = strconv.Itoa(i)
		}
	}
	var workers atomic.Int64
	b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := workers.Add(1) * 37; pb.Next(); i++ {
			if _, err := g.Do(ctx, "lane", names[i%int64(len(names))], 1, 8); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	s := g.Stats()
	b.ReportMetric(float64(s.Items)/float64(s.Flights), "items/flight")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "do/s")
}

func contexts(b *testing.B) map[string]context.Context {
	return map[string]context.Context{"background": context.WithoutCancel(b.Context()), "cancel": b.Context()}
}
