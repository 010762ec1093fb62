package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/stock"
)

// run is the whole program, and returns its exit status.
func run(ctx context.Context, out io.Writer, addr string, buyers int, units int64) int {
	began, server, show := time.Now(), "Redis at "+addr, screenOn(out)
	if addr == "" {
		// Nothing here lives long enough to need miniredis's clock for TTLs.
		embedded, err := miniredis.Run()
		if err != nil {
			show.say("Cannot start the simulated Redis: %v\n", err)
			return 1
		}
		defer embedded.Close()
		addr, server = embedded.Addr(), "a Redis simulated in this process (a real one: -redis host:port)"
	}
	show.say("%s buyers, %d units, at most %d each, %v to pay.\nThe stock is in %s.\n\n",
		grouped(int64(buyers)), units, limit, hold, server)

	rdb := redis.NewClient(&redis.Options{Addr: addr, DialerRetries: 1}) // a refused dial is reported at once
	defer rdb.Close()
	inTime, cancel := context.WithTimeout(ctx, patience+3*time.Second) // should Redis not answer any more
	defer cancel()
	verdicts, err := sell(inTime, rdb, buyers, units, show)
	switch {
	case ctx.Err() != nil:
		show.say("\nInterrupted: no verdict.\n")
		return 1
	case err != nil:
		show.say("\nNo verdict: %v\n", err)
		return 1
	}
	return report(show, verdicts, time.Since(began))
}

// A sale is a crowd of buyers, and what they were told.
type sale struct {
	stock  *stock.Activity
	units  int64
	open   context.Context // ends when all units are paid for, and after patience
	close  context.CancelFunc
	crowd  sync.WaitGroup
	staff  sync.WaitGroup
	paid   atomic.Int64
	clicks atomic.Int64

	mu      sync.Mutex
	told    map[string]stock.State // by order id: the end that its buyer was told of
	trouble error                  // the last call that had to be repeated
}

// patience is when a sale that does not sell everything is given up.
const patience = time.Minute

func newSale(ctx context.Context, activity *stock.Activity, units int64) *sale {
	s := &sale{stock: activity, units: units, told: make(map[string]stock.State)}
	s.open, s.close = context.WithTimeout(ctx, patience)
	return s
}

// end waits until everybody has gone home.
func (s *sale) end(ctx context.Context) error {
	s.crowd.Wait()
	s.close()
	s.staff.Wait()
	if ctx.Err() == nil {
		return nil
	}
	return errors.Join(ctx.Err(), s.trouble)
}

// sleep reports false when the sale is over.
func (s *sale) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return s.open.Err() == nil
	case <-s.open.Done():
		return false
	}
}

// click reserves, with an impatient buyer twice at the same time. It is one order
// all the same: one yes is a yes.
func (s *sale) click(ctx context.Context, order stock.Order, twice bool) error {
	reserve := func(o stock.Order) error {
		s.clicks.Add(1)
		_, err := s.sure(ctx, func() (stock.Result, error) { return s.stock.Reserve(ctx, o) })
		return err
	}
	if !twice {
		return reserve(order)
	}
	var second error
	var done sync.WaitGroup
	done.Go(func() {
		again := order
		again.Retry = true // never answered from memory: the first click may have got a unit
		second = reserve(again)
	})
	first := reserve(order)
	done.Wait()
	if first == nil {
		return nil
	}
	return second
}

// sure repeats a call until it is known what came of it. That is always safe: the
// same call is never done twice.
func (s *sale) sure(ctx context.Context, call func() (stock.Result, error)) (stock.Result, error) {
	for {
		res, err := call()
		if !errors.Is(err, stock.ErrUnknown) && !errors.Is(err, stock.ErrUnavailable) || ctx.Err() != nil {
			return res, err
		}
		s.mu.Lock()
		s.trouble = err
		s.mu.Unlock()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (s *sale) tell(order stock.Order, end stock.State) {
	s.mu.Lock()
	s.told[order.ID] = end
	s.mu.Unlock()
	if end == stock.Confirmed && s.paid.Add(1) == s.units {
		s.close()
	}
}

// drop deletes the activity, after Ctrl-C too.
func drop(ctx context.Context, activity *stock.Activity) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(activity.Close(ctx), activity.Drop(ctx))
}

// A screen shows how the sale goes: a line that changes, or, where that would not be
// seen, a line a second.
type screen struct {
	out   io.Writer
	every time.Duration
	live  bool
}

func screenOn(out io.Writer) screen {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return screen{out: out, every: 100 * time.Millisecond, live: true}
		}
	}
	return screen{out: out, every: time.Second}
}

// say prints; where that fails there is nobody to tell.
func (s screen) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

// watch shows the sale until it is over.
func (s *sale) watch(ctx context.Context, show screen) {
	began := time.Now()
	for on := true; on; {
		on = s.sleep(show.every)
		line := "Redis does not answer"
		if levels, err := s.stock.Stock(ctx, sku); err == nil {
			l := levels[sku]
			line = fmt.Sprintf("[%-20s] paid %3d, held %3d, left %3d, %s clicks",
				strings.Repeat("#", int(20*l.Sold/s.units)), l.Sold, l.Reserved, l.Left, grouped(s.clicks.Load()))
		}
		line = fmt.Sprintf("%4.1f s %s", time.Since(began).Seconds(), line)
		if show.live {
			show.say("\r\x1b[K%s", line)
		} else {
			show.say("%s\n", line)
		}
	}
	if show.live {
		show.say("\n")
	}
	st := s.stock.Stats()
	show.say("\n%s clicks: %s were answered \"sold out\" from memory. The others, with payments\nand cancels, were %s calls; they shared %s round trips to Redis.\n",
		grouped(s.clicks.Load()), grouped(int64(st.FromMemory)), grouped(int64(st.Calls+st.Joined)), grouped(int64(st.Batches)))
}

// grouped writes 10000 as 10,000.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
