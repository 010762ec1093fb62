//go:build unix

package bench

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/redistest"
)

// poolSize is what every row's client has: more connections than the largest
// number of goroutines, so that no row waits for one.
const poolSize = 300

// startServer starts the one redis-server of this process, with no persistence.
var startServer = sync.OnceValues(func() (*redistest.Proc, error) {
	return redistest.Start(context.Background())
})

func TestMain(m *testing.M) {
	code := m.Run()
	if started.Load() {
		server, _ := startServer()
		server.Close()
	}
	os.Exit(code)
}

var started atomic.Bool

// newClient empties the server and returns a client of it. Beside the pool's
// size all settings are go-redis's own.
func newClient(b *testing.B) *redis.Client {
	b.Helper()
	server, err := startServer()
	if err != nil {
		b.Fatal(err)
	}
	started.Store(true)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: poolSize})
	b.Cleanup(func() { _ = rdb.Close() })
	if err := rdb.FlushAll(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	return rdb
}

// A load says how work is driven, and what of it is measured.
type load struct {
	goroutines int
	// commands are those that the clients send, whose server time counts: what a
	// script calls has statistics of its own, and is in the script's already.
	commands []string
	memory   bool // report what an operation leaves behind in Redis
}

// run does work(0) to work(b.N-1), each once, from a fixed number of goroutines,
// and reports beside ns/op and allocations:
//
//	ops/s            operations a second
//	p99-ms           99th percentile of the latency of one operation
//	CPU-ns/op        CPU time of this process, the Redis server not included
//	us-server/op     time in which the server executed commands
//	us-redis-cpu/op  CPU time of the server's process: the same and its network I/O
//	ops/call         operations that one command carried
//	B/order          growth of the keys, as MEMORY USAGE counts them element by element
//
// work may be called for different i at once. Its first error ends the run.
func run(b *testing.B, rdb *redis.Client, l load, work func(i int) error) {
	b.Helper()
	if err := warm(b.Context(), rdb, l.goroutines); err != nil {
		b.Fatal(err)
	}
	runtime.GC() // of what earlier rows left
	if err := rdb.ConfigResetStat(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	before, err := ask(b.Context(), rdb)
	if err != nil {
		b.Fatal(err)
	}
	empty := int64(0)
	if l.memory {
		empty = stored(b, rdb)
	}
	cpu := cpuTime(b)
	b.ReportAllocs()
	b.ResetTimer()
	latencies, err := drive(l.goroutines, b.N, work)
	b.StopTimer()
	cpu = cpuTime(b) - cpu
	if err != nil {
		b.Fatal(err)
	}
	after, err := ask(b.Context(), rdb)
	if err != nil {
		b.Fatal(err)
	}
	n := float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/n, "CPU-ns/op")
	b.ReportMetric(latencies.quantile(0.99).Seconds()*1e3, "p99-ms")
	b.ReportMetric((after.cpu-before.cpu)*1e6/n, "us-redis-cpu/op")
	us, calls := 0.0, 0.0
	for _, c := range l.commands {
		us += after.usec[c] - before.usec[c]
		calls += after.calls[c] - before.calls[c]
	}
	b.ReportMetric(us/n, "us-server/op")
	if calls > 0 {
		b.ReportMetric(n/calls, "ops/call")
	}
	if l.memory {
		b.ReportMetric(float64(stored(b, rdb)-empty)/n, "B/order")
	}
}

// warm opens the connections that the goroutines will use, so that dialling is in
// nobody's time.
func warm(ctx context.Context, rdb *redis.Client, goroutines int) error {
	_, err := drive(goroutines, 20*goroutines, func(int) error { return rdb.Ping(ctx).Err() })
	return err
}

// drive shares the numbers below n among goroutines, in short runs of them.
// A fixed share each would let the last goroutine work alone where the work is
// unfair, as locks are; one number at a time would measure the counter where the
// work is a memory access. The first call of each run is timed.
func drive(goroutines, n int, work func(i int) error) (histogram, error) {
	var (
		wg     sync.WaitGroup
		next   atomic.Int64
		failed atomic.Pointer[error]
		chunk  = int64(max(1, min(64, n/(64*goroutines))))
		all    = make([]histogram, goroutines)
	)
	for g := range goroutines {
		wg.Go(func() {
			for {
				to := next.Add(chunk)
				for i := to - chunk; i < min(to, int64(n)); i++ {
					var start time.Time
					if i == to-chunk {
						start = time.Now()
					}
					if err := work(int(i)); err != nil {
						first := err // err itself would be allocated for every operation
						failed.CompareAndSwap(nil, &first)
					}
					if i == to-chunk {
						all[g].add(time.Since(start))
					}
				}
				if to >= int64(n) || failed.Load() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for g := 1; g < goroutines; g++ {
		all[0].merge(&all[g])
	}
	if err := failed.Load(); err != nil {
		return all[0], *err
	}
	return all[0], nil
}

// A histogram counts durations in buckets 3 % wide, which is all that a
// percentile needs.
type histogram [64 * steps]uint32

const steps = 32 // buckets for each doubling

func (h *histogram) add(d time.Duration) {
	ns := uint64(max(d, steps))
	shift := bits.Len64(ns) - bits.Len64(steps)
	h[uint64(shift)*steps+ns>>shift-steps]++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o {
		h[i] += n
	}
}

func (h *histogram) quantile(q float64) time.Duration {
	total := uint64(0)
	for _, n := range h {
		total += uint64(n)
	}
	rank := uint64(q * float64(total))
	for i, n := range h {
		if uint64(n) > rank {
			return time.Duration(steps+i%steps) << (i / steps)
		}
		rank -= uint64(n)
	}
	return 0
}

// cpuTime is the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stored is what the keys take, in bytes. INFO's figures are no use here: what
// they count of the clients' buffers and of memory that is being freed is as
// large as what a short run leaves behind.
func stored(b *testing.B, rdb *redis.Client) (sum int64) {
	b.Helper()
	keys, err := rdb.Keys(b.Context(), "*").Result()
	if err != nil {
		b.Fatal(err)
	}
	for _, key := range keys {
		n, err := rdb.MemoryUsage(b.Context(), key, 0).Result() // 0: look at every element
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return sum
}

// A reading is what the server tells of itself.
type reading struct {
	usec, calls map[string]float64 // by command
	cpu         float64            // seconds
}

func ask(ctx context.Context, rdb *redis.Client) (reading, error) {
	r := reading{usec: map[string]float64{}, calls: map[string]float64{}}
	info, err := rdb.Info(ctx, "commandstats", "cpu").Result()
	if err != nil {
		return r, err
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		number, _ := strconv.ParseFloat(value, 64)
		switch {
		case name == "used_cpu_user" || name == "used_cpu_sys":
			r.cpu += number
		case strings.HasPrefix(name, "cmdstat_"):
			command := strings.TrimPrefix(name, "cmdstat_")
			var calls, usec float64
			if _, err := fmt.Sscanf(value, "calls=%g,usec=%g,", &calls, &usec); err != nil {
				return r, fmt.Errorf("INFO commandstats: %q: %w", line, err)
			}
			r.calls[command], r.usec[command] = calls, usec
		}
	}
	return r, nil
}
