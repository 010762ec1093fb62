package bots

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
)

// Options of a run.
type Options struct {
	Customers int
	Units     int64
	Star      bool          // the host is one
	Rate      float64       // customers a second; 0: a closed loop
	Within    time.Duration // from the first click to the last unit paid for
	// During happens while they buy, and may write between the lines of progress: the
	// sale is not over before it returns. Nil: nothing.
	During func(ctx context.Context, out io.Writer) error
	// Judge stops the service and judges what it left. Nil: the service goes on, and
	// answers for itself.
	Judge func(ctx context.Context) ([]check.Verdict, error)
}

// ErrFailed means that something that must hold did not.
var ErrFailed = errors.New("bots: FAIL")

// Run sells Units to Customers of the service at base, and judges the service: by what
// it told them, and by its own invariants. The service must be on this machine, since
// the bots are its operator too.
func Run(ctx context.Context, base string, opts Options, out io.Writer) error {
	out = &shared{w: out}
	var grants []string
	if opts.Star {
		grants = append(grants, room.Star)
	}
	stage, err := NewStage(ctx, base, fmt.Sprintf("139%08d", rand.IntN(1e8)), "bots", room.Normal, grants...)
	if err != nil {
		return err
	}
	sku, err := stage.Sell(ctx, Product{Title: "what everybody wants", Fen: 9900, Total: opts.Units, PerUser: 1})
	if err != nil {
		return err
	}
	c := NewCrowd(base, stage.Room, sku, opts.Units)
	defer c.Close()
	p := newProgress(out)

	fmt.Fprintf(out, "%s customers log in.\n", grouped(int64(opts.Customers)))
	stop := p.show(func() string { return fmt.Sprintf("%s logged in", grouped(c.loggedIn.Load())) })
	err = c.LogIn(ctx, opts.Customers)
	stop()
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}

	watchers, why := audience(opts.Customers)
	fmt.Fprintf(out, "%s of them watch the room (%s).\n", grouped(int64(watchers)), why)
	seats, err := c.Watch(ctx, watchers)
	if err != nil {
		return err
	}
	defer seats.Leave()

	loop := "the next one when one has the answer"
	if opts.Rate > 0 {
		loop = fmt.Sprintf("%.0f a second, whatever the answers", opts.Rate)
	}
	fmt.Fprintf(out, "They want %s units: %s.\n", grouped(opts.Units), loop)
	began, before := time.Now(), c.meter.count()
	sale, cancel := context.WithTimeout(ctx, opts.Within)
	stop = p.show(c.line)
	during := make(chan error, 1)
	go func() {
		if opts.During == nil {
			opts.During = func(context.Context, io.Writer) error { return nil }
		}
		during <- opts.During(sale, out)
	}()
	c.Come(sale, opts.Rate)
	err = <-during
	cancel()
	stop()
	if err != nil {
		return err
	}
	took := time.Since(began)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	calls := c.meter.count() - before
	fmt.Fprintf(out, "\n%s calls in %.1f s, %.0f a second.\n\n", grouped(int64(calls)), took.Seconds(), float64(calls)/took.Seconds())
	c.meter.print(out)
	servers(ctx, stage.operator, out)

	verdicts, err := c.verdicts(ctx, stage, seats, opts)
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	return Print(out, verdicts)
}

// verdicts judges when what is not paid for has come back.
func (c *Crowd) verdicts(ctx context.Context, stage *Stage, seats *Audience, opts Options) ([]check.Verdict, error) {
	if err := c.drain(ctx, stage.operator); err != nil {
		return nil, err
	}
	verdicts := c.answers(opts)
	if saw := seats.Leave(); len(seats.watchers) > 0 {
		verdicts = append(verdicts, check.Verdict{
			Name: "nothing reliable lost for sockets that stayed", OK: saw.Lost == 0,
			Detail: fmt.Sprintf("%d sockets got %d frames, of these %d reliable; %d lost %s", len(seats.watchers), saw.Frames, saw.Reliable, saw.Lost, saw.FirstFault),
		})
	}
	if opts.Judge == nil {
		opts.Judge = stage.ask
	}
	of, err := opts.Judge(ctx)
	return append(verdicts, of...), err
}

// ask closes the room and asks the service what it says of itself.
func (s *Stage) ask(ctx context.Context) (verdicts []check.Verdict, err error) {
	if err := s.Close(ctx); err != nil {
		return nil, err
	}
	err = s.operator.Sure(ctx, "GET /admin/invariants", nil, &verdicts)
	return verdicts, err
}

// answers judges what the customers were told.
func (c *Crowd) answers(opts Options) []check.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	buyers := map[int64]bool{}
	for _, uid := range c.told {
		buyers[uid] = true
	}
	sold := check.Verdict{Name: "sold is what there was, and no more", Detail: fmt.Sprintf("%d of %d units paid for", len(c.told), opts.Units)}
	sold.OK = int64(len(c.told)) == opts.Units || int64(len(c.told)) < opts.Units && int64(opts.Customers) < 2*opts.Units
	one := check.Verdict{Name: "nobody got more than one", OK: len(buyers) == len(c.told), Detail: fmt.Sprintf("%d customers", len(buyers))}
	odd := check.Verdict{Name: "every call got an answer that makes sense", OK: len(c.odd) == 0, Detail: fmt.Sprintf("%d did not", len(c.odd))}
	if len(c.odd) > 0 {
		odd.Detail += "; the first: " + c.odd[0]
	}
	return []check.Verdict{sold, one, odd}
}

// drain waits until no unit of the product is held.
func (c *Crowd) drain(ctx context.Context, operator *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var stats struct {
			Stock []struct {
				SKU      string
				Reserved int64
			}
		}
		if err := operator.Sure(ctx, "GET /admin/stats", nil, &stats); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		held := int64(0)
		for _, s := range stats.Stock {
			if s.SKU == c.sku {
				held = s.Reserved
			}
		}
		if held == 0 || !sleep(ctx, 200*time.Millisecond) {
			return nil // after a minute the verdicts tell what is held
		}
	}
}

// servers writes how the servers saw it.
func servers(ctx context.Context, operator *client.Client, out io.Writer) {
	var stats struct {
		Servers []struct {
			ID       string
			P50      float64 `json:"p50_ms"`
			P99      float64 `json:"p99_ms"`
			Sockets  int
			Requests map[string]uint64
		}
	}
	if err := operator.Call(ctx, "GET /admin/stats", nil, &stats); err != nil {
		return // it is not what is judged
	}
	for _, s := range stats.Servers {
		fmt.Fprintf(out, "server %s: p50 %.1f ms, p99 %.1f ms of its last 2,048 requests; %d sockets\n", s.ID, s.P50, s.P99, s.Sockets)
	}
}

// Print writes verdicts. The error is not nil if one is bad.
func Print(out io.Writer, verdicts []check.Verdict) error {
	failed := 0
	for _, v := range verdicts {
		word := "PASS"
		if !v.OK {
			word, failed = "FAIL", failed+1
		}
		fmt.Fprintf(out, "  %s  %-48s %s\n", word, v.Name, v.Detail)
	}
	if failed > 0 || len(verdicts) == 0 {
		return fmt.Errorf("%w: %d of %d", ErrFailed, failed, len(verdicts))
	}
	fmt.Fprintf(out, "PASS: all %d.\n", len(verdicts))
	return nil
}
