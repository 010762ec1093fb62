package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/breaker"
)

// health says whether Redis is worth asking. Without it everyone who misses would
// wait for the timeout while it is down.
type health struct{ breaker *breaker.Breaker }

func (h health) allow() error {
	if h.breaker.Ready() {
		return nil
	}
	return fmt.Errorf("%w: it failed several times in a row and is not asked for %v", ErrUnavailable, h.breaker.Wait().Round(time.Millisecond))
}

// report tells how a call ended, which was made for ctx: whoever leaves says
// nothing about Redis. A server that replies is up, if only to say that it is out
// of memory.
func (h health) report(ctx context.Context, err error) {
	var reply redis.Error
	switch {
	case err == nil:
		h.breaker.Done(true)
	case ctx.Err() != nil || errors.Is(err, ErrClosed):
	case errors.As(err, &reply):
		h.breaker.Done(!redis.HasErrorPrefix(reply, "LOADING") && !redis.HasErrorPrefix(reply, "CLUSTERDOWN") && !redis.HasErrorPrefix(reply, "MASTERDOWN"))
	default:
		h.breaker.Done(false)
	}
}

// saidNo reports whether the server itself refused a call: it is up, and out of
// memory for example, so that a call which needs none may succeed.
func saidNo(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// A bucket lets so many loads a second through.
type bucket struct {
	mu   sync.Mutex
	rate float64
	left float64
	at   time.Time
}

func newBucket(rate int) *bucket {
	return &bucket{rate: float64(rate), left: float64(rate), at: time.Now()}
}

func (b *bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.left = min(b.rate, b.left+b.rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
