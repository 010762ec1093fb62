//go:build unix

package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/delayqueue"
)

// A job has a body of 64 bytes; asynq has it as a task's payload.
const jobBody = 64

// workers is how many handlers run at a time in every row.
const workers = 256

func body(i int) []byte {
	b := make([]byte, jobBody)
	strconv.AppendInt(b[:0], int64(i), 10)
	return b
}

func queue(b *testing.B, rdb *redis.Client) *delayqueue.Queue {
	b.Helper()
	q, err := delayqueue.New(rdb, "bench", delayqueue.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = q.Close(context.Background()) })
	return q
}

// BenchmarkDelayQueueAdd adds a job that is due in an hour.
func BenchmarkDelayQueueAdd(b *testing.B) {
	for _, goroutines := range []int{1, 64, 256} {
		param := fmt.Sprintf("/goroutines=%d", goroutines)
		b.Run("spillway"+param, func(b *testing.B) {
			rdb := newClient(b)
			q, ctx := queue(b, rdb), b.Context()
			run(b, rdb, load{goroutines: goroutines, commands: []string{"evalsha"}}, func(i int) error {
				_, err := q.Add(ctx, delayqueue.Job{Body: body(i), Delay: time.Hour})
				return err
			})
		})
		b.Run("asynq"+param, func(b *testing.B) {
			rdb := newClient(b)
			c, ctx := asynq.NewClientFromRedisClient(rdb), b.Context()
			run(b, rdb, load{goroutines: goroutines, commands: []string{"evalsha"}}, func(i int) error {
				_, err := c.EnqueueContext(ctx, asynq.NewTask("t", body(i)), asynq.ProcessIn(time.Hour))
				return err
			})
		})
	}
}

// BenchmarkDelayQueueAddMany adds jobs 500 at a time, an operation being one job.
// asynq has no such call: its row is the best that it offers, 64 goroutines.
func BenchmarkDelayQueueAddMany(b *testing.B) {
	const many = 500
	b.Run("spillway", func(b *testing.B) {
		rdb := newClient(b)
		q, ctx := queue(b, rdb), b.Context()
		b.ResetTimer()
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					to := next.Add(many)
					n := min(many, int64(b.N)-(to-many))
					if n <= 0 {
						return
					}
					jobs := make([]delayqueue.Job, n)
					for i := range jobs {
						jobs[i] = delayqueue.Job{Body: body(i), Delay: time.Hour}
					}
					if _, err := q.AddMany(ctx, jobs); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	})
	b.Run("asynq", func(b *testing.B) {
		rdb := newClient(b)
		c, ctx := asynq.NewClientFromRedisClient(rdb), b.Context()
		run(b, rdb, load{goroutines: 64, commands: []string{"evalsha"}}, func(i int) error {
			_, err := c.EnqueueContext(ctx, asynq.NewTask("t", body(i)), asynq.ProcessIn(time.Hour))
			return err
		})
	})
}

// asynqServer works with the same number of handlers. Tuned, it looks for due tasks as
// often as it allows where its documentation says nothing against it: once a second.
func asynqServer(rdb *redis.Client, tuned bool) *asynq.Server {
	cfg := asynq.Config{Concurrency: workers, LogLevel: asynq.FatalLevel}
	if tuned {
		cfg.DelayedTaskCheckInterval = time.Second
		cfg.TaskCheckInterval = 10 * time.Millisecond
	}
	return asynq.NewServerFromRedisClient(rdb, cfg)
}

// BenchmarkDelayQueueProcess runs jobs that are due, with a handler that does nothing.
func BenchmarkDelayQueueProcess(b *testing.B) {
	b.Run("spillway", func(b *testing.B) {
		rdb := newClient(b)
		q, ctx := queue(b, rdb), b.Context()
		jobs := make([]delayqueue.Job, 0, 1000)
		for i := range b.N {
			jobs = append(jobs, delayqueue.Job{Body: body(i)})
			if len(jobs) == cap(jobs) || i == b.N-1 {
				if _, err := q.AddMany(ctx, jobs); err != nil {
					b.Fatal(err)
				}
				jobs = jobs[:0]
			}
		}
		process(b, rdb, func(done func()) (stop func()) {
			ctx, cancel := context.WithCancel(ctx)
			ended := make(chan error, 1)
			go func() {
				ended <- q.Run(ctx, func(context.Context, *delayqueue.Delivery) error {
					done()
					return nil
				}, delayqueue.RunOptions{Concurrency: workers})
			}()
			return func() {
				cancel()
				if err := <-ended; err != nil {
					b.Error(err)
				}
			}
		})
		if st, err := q.Inspect(ctx); err != nil || st.Waiting+st.Running != 0 {
			b.Fatalf("%+v, %v", st, err)
		}
	})
	for name, tuned := range map[string]bool{"asynq": false, "asynq-tuned": true} {
		b.Run(name, func(b *testing.B) {
			rdb := newClient(b)
			c, ctx := asynq.NewClientFromRedisClient(rdb), b.Context()
			if _, err := drive(64, b.N, func(i int) error {
				_, err := c.EnqueueContext(ctx, asynq.NewTask("t", body(i)))
				return err
			}); err != nil {
				b.Fatal(err)
			}
			process(b, rdb, func(done func()) (stop func()) {
				s := asynqServer(rdb, tuned)
				if err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
					done()
					return nil
				})); err != nil {
					b.Fatal(err)
				}
				return s.Shutdown
			})
		})
	}
}

// process times b.N handlers, from the start of the worker to its end.
func process(b *testing.B, rdb *redis.Client, start func(done func()) (stop func())) {
	b.Helper()
	var n atomic.Int64
	all := make(chan struct{})
	before, err := ask(b.Context(), rdb)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime(b)
	stop := start(func() {
		if n.Add(1) == int64(b.N) {
			close(all)
		}
	})
	<-all
	b.StopTimer()
	stop()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(b.N), "CPU-ns/op")
	after, err := ask(b.Context(), rdb)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((after.cpu-before.cpu)*1e6/float64(b.N), "us-redis-cpu/op")
	b.ReportMetric((after.usec["evalsha"]-before.usec["evalsha"])/float64(b.N), "us-server/op")
	b.ReportMetric(float64(b.N)/(after.calls["evalsha"]-before.calls["evalsha"]), "ops/call")
}

// BenchmarkDelayQueueLatency adds jobs that are due 200 a second for six seconds, whatever
// b.N is, at given times, and reports when they started, measured from when they were
// due: early-ms is how early the earliest was.
func BenchmarkDelayQueueLatency(b *testing.B) {
	const jobs, over = 1200, 6 * time.Second
	rows := map[string]func(b *testing.B, rdb *redis.Client, due []time.Time, started func(i int)) (stop func()){
		"spillway": func(b *testing.B, rdb *redis.Client, due []time.Time, started func(i int)) func() {
			q := queue(b, rdb)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- q.Run(ctx, func(_ context.Context, d *delayqueue.Delivery) error {
					started(index(d.Body))
					return nil
				}, delayqueue.RunOptions{Concurrency: workers})
			}()
			for i, at := range due {
				if _, err := q.Add(ctx, delayqueue.Job{Body: body(i), At: at}); err != nil {
					b.Fatal(err)
				}
			}
			return func() { cancel(); <-ended }
		},
	}
	for name, tuned := range map[string]bool{"asynq": false, "asynq-tuned": true} {
		rows[name] = func(b *testing.B, rdb *redis.Client, due []time.Time, started func(i int)) func() {
			c := asynq.NewClientFromRedisClient(rdb)
			s := asynqServer(rdb, tuned)
			if err := s.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
				started(index(t.Payload()))
				return nil
			})); err != nil {
				b.Fatal(err)
			}
			for i, at := range due {
				if _, err := c.Enqueue(asynq.NewTask("t", body(i)), asynq.ProcessAt(at)); err != nil {
					b.Fatal(err)
				}
			}
			return s.Shutdown
		}
	}
	for _, name := range []string{"spillway", "asynq", "asynq-tuned"} {
		b.Run(name, func(b *testing.B) {
			rdb := newClient(b)
			late := make([]time.Duration, jobs)
			due := make([]time.Time, jobs)
			var wg sync.WaitGroup
			wg.Add(jobs)
			first := time.Now().Add(2 * time.Second) // when all have been added
			for i := range due {
				due[i] = first.Add(over * time.Duration(i) / jobs)
			}
			stop := rows[name](b, rdb, due, func(i int) {
				late[i] = time.Since(due[i])
				wg.Done()
			})
			if time.Now().After(first) {
				b.Log("jobs were due before all had been added")
			}
			wg.Wait()
			stop()
			var h histogram
			early := time.Duration(0)
			for _, d := range late {
				early = max(early, -d)
				h.add(d)
			}
			b.ReportMetric(h.quantile(0.5).Seconds()*1e3, "p50-ms")
			b.ReportMetric(h.quantile(0.99).Seconds()*1e3, "p99-ms")
			b.ReportMetric(early.Seconds()*1e3, "early-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func index(body []byte) int {
	n := 0
	for _, c := range body {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// BenchmarkDelayQueueMemory stores 100,000 jobs, whatever b.N is, and reports what a
// waiting job takes.
func BenchmarkDelayQueueMemory(b *testing.B) {
	const jobs = 100_000
	measure := func(b *testing.B, rdb *redis.Client, add func(i int) error) {
		b.Helper()
		if _, err := drive(64, jobs, add); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(stored(b, rdb))/jobs, "B/job")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("spillway", func(b *testing.B) {
		rdb := newClient(b)
		q, ctx := queue(b, rdb), b.Context()
		measure(b, rdb, func(i int) error {
			_, err := q.Add(ctx, delayqueue.Job{Body: body(i), Delay: time.Hour})
			return err
		})
	})
	b.Run("asynq", func(b *testing.B) {
		rdb := newClient(b)
		c, ctx := asynq.NewClientFromRedisClient(rdb), b.Context()
		measure(b, rdb, func(i int) error {
			_, err := c.EnqueueContext(ctx, asynq.NewTask("t", body(i)), asynq.ProcessIn(time.Hour))
			return err
		})
	})
}
