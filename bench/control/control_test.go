//go:build unix

// Package control shows what the oracles of Spillway's own process tests see in the
// libraries that bench measures beside it: an oracle that finds nothing anywhere
// proves nothing.
package control

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

const (
	ttl  = 100 * time.Millisecond
	hold = 50 * time.Millisecond
)

func TestMain(m *testing.M) { chaos.Main(m, map[string]chaos.Job{"redislock": work}) }

// work takes a lock of redislock again and again, and writes to a list while it
// holds it. There is no fence to send along, and nothing that tells of a loss.
func work(ctx context.Context, w *chaos.Worker) error {
	var addr string
	if err := w.Config(&addr); err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer rdb.Close()
	locks := redislock.New(rdb)
	for n := 0; ctx.Err() == nil; n++ {
		l, err := locks.Obtain(ctx, "lock", ttl, &redislock.Options{RetryStrategy: redislock.LinearBackoff(2 * time.Millisecond)})
		if err != nil {
			continue
		}
		if err := w.Report(os.Getpid()); err != nil {
			return err
		}
		for end := time.Now().Add(hold); ; {
			if err := rdb.RPush(context.WithoutCancel(ctx), "log", fmt.Sprintf("%d/%d", os.Getpid(), n)).Err(); err != nil {
				return err
			}
			if time.Now().After(end) {
				break
			}
			<-time.After(2 * time.Millisecond)
		}
		_ = l.Release(context.WithoutCancel(ctx)) // an error after a stop
		<-time.After(10 * time.Millisecond)
	}
	return nil
}

// TestRedislockStopped stops a holder for longer than its TTL. lock's TestProcesses,
// under the same and worse, finds no write of an older holder after a newer one's.
func TestRedislockStopped(t *testing.T) {
	srv := redistest.Server(t)
	rdb := srv.Client()
	holders := make(chan int, 10_000)
	var workers []*chaos.Process
	for range 2 {
		workers = append(workers, chaos.Start(t, "redislock", srv.Addr(), func(pid int) { holders <- pid }))
	}
	found, rounds := 0, 0
	for ; found == 0 && rounds < 50; rounds++ {
		for len(holders) > 0 {
			<-holders
		}
		pid := <-holders
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * ttl)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		<-time.After(hold)
		log, err := rdb.LRange(t.Context(), "log", 0, -1).Result()
		if err != nil {
			t.Fatal(err)
		}
		found = interleaved(log)
	}
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d interleaved writes after %d rounds", found, rounds)
	if found == 0 {
		t.Error("no stopped holder wrote after the next: the oracle sees nothing")
	}
}

// interleaved tells how often a holder wrote again after another had begun to.
func interleaved(log []string) int {
	n, done := 0, map[string]bool{}
	for i, who := range log {
		if i > 0 && log[i-1] != who {
			done[log[i-1]] = true
			if done[who] {
				n++
			}
		}
	}
	return n
}
