package stock

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Servers that are full, evict or tell nothing.

func TestOutOfMemory(t *testing.T) {
	p := redistest.Server(t, "--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
	rdb := p.Client()
	ctx := t.Context()
	for _, unmerged := range []bool{false, true} {
		a := open(t, rdb, Options{SoldOutFor: -1, Unmerged: unmerged, UserLimit: 100})
		require.NoError(t, a.Load(ctx, lostStock))
		for _, id := range []string{"held", "sold"} {
			_, err := a.Reserve(ctx, tea(id, "u", 2))
			require.NoError(t, err)
		}
		fill(t, rdb)
		before := journal(t, a)
		calls := map[string]func() error{
			"Deduct":  func() error { _, err := a.Deduct(ctx, tea("new", "u", 1)); return err },
			"Reserve": func() error { _, err := a.Reserve(ctx, tea("new", "u", 1)); return err },
			"Confirm": func() error { _, err := a.Confirm(ctx, Ref{"sold", "u"}); return err },
			"Cancel":  func() error { _, err := a.Cancel(ctx, Ref{"held", "u"}, "full"); return err },
			"Restock": func() error { _, err := a.Restock(ctx, "r", Item{"tea", 1}); return err },
			"Load":    func() error { return a.Load(ctx, map[string]int64{"other": 1}) },
			"Halt":    func() error { return a.Halt(ctx, "full") },
			"Allow":   func() error { return a.Allow(ctx, "u") },
		}
		for name, call := range calls {
			began := time.Now()
			err := call()
			require.ErrorIs(t, err, ErrUnavailable, name)
			require.NotErrorIs(t, err, ErrUnknown, name)
			require.ErrorContains(t, err, "OOM", name)
			require.Less(t, time.Since(began), 5*time.Second, name)
		}
		require.Equal(t, before, journal(t, a))
		requireTea(t, a, 1, 4, 0)
		// What only reads still answers.
		res, err := a.Lookup(ctx, Ref{"held", "u"})
		require.NoError(t, err)
		require.Equal(t, Reserved, res.State)
		res, err = a.Reserve(ctx, tea("held", "u", 2))
		require.NoError(t, err)
		require.True(t, res.Replayed)
		require.Equal(t, 1, a.Stats().PendingCancels)

		// Run tries the cancel again, until there is room.
		stop := start(t, a.Run)
		eventually(t, func() bool { return a.Stats().PendingCancels == 1 }, "the cancel was given up")
		require.NoError(t, rdb.Del(ctx, "junk").Err())
		eventually(t, func() bool { return a.Stats().PendingCancels == 0 }, "the cancel is never tried again")
		stop()
		require.Equal(t, []OpKind{OpReserve, OpCancel}, kinds(t, a, "held"))
		require.Equal(t, "full", ops(t, a)[len(ops(t, a))-1].Reason)
		_, err = a.Confirm(ctx, Ref{"sold", "u"})
		require.NoError(t, err)
		requireConserved(t, a)
	}
}

// fill leaves no room for anything.
func fill(t *testing.T, rdb redis.UniversalClient) {
	for size := 1 << 18; size > 0; size /= 2 {
		for {
			if err := rdb.RPush(t.Context(), "junk", strings.Repeat("x", size)).Err(); err != nil {
				require.ErrorContains(t, err, "OOM")
				break
			}
		}
	}
}

func TestEviction(t *testing.T) {
	for policy, ok := range map[string]bool{"noeviction": true, "volatile-lru": false, "allkeys-random": false} {
		p := redistest.Server(t, "--maxmemory-policy", policy)
		rdb := p.Client()
		_, err := New(rdb, "sale", Options{})
		if ok {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, policy)
			require.ErrorContains(t, err, "AllowEviction")
		}
		_, err = New(rdb, "sale", Options{AllowEviction: true})
		require.NoError(t, err)
	}
}

// A policy that cannot be read is accepted, and said.
func TestEvictionUnknown(t *testing.T) {
	_, rdb := redistest.Mini(t) // has neither CONFIG nor that line of INFO
	var log bytes.Buffer
	_, err := New(rdb, "sale", Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.Contains(t, log.String(), "evict")
	require.Contains(t, log.String(), "WARN")
	log.Reset()
	_, err = New(rdb, "sale", Options{AllowEviction: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.Empty(t, log.String())
}

// A server that is down: nothing happened, said within a second or so.
func TestDown(t *testing.T) {
	t.Parallel()
	p := redistest.Server(t)
	rdb := p.Client()
	a := open(t, rdb, Options{})
	require.NoError(t, a.Load(t.Context(), lostStock))
	p.Kill()
	ctx := t.Context()
	calls := map[string]func() error{
		"Deduct":  func() error { _, err := a.Deduct(ctx, tea("o", "u", 1)); return err },
		"Confirm": func() error { _, err := a.Confirm(ctx, Ref{"o", "u"}); return err },
		"Restock": func() error { _, err := a.Restock(ctx, "o", Item{"tea", 1}); return err },
		"Drop":    func() error { return a.Drop(ctx) },
		"Stock":   func() error { _, err := a.Stock(ctx); return err },
		"Named":   func() error { _, err := a.Stock(ctx, "tea"); return err },
		"Inspect": func() error { _, err := a.Inspect(ctx); return err },
		"Holds": func() error {
			for _, err := range a.Holds(ctx) {
				return err
			}
			return nil
		},
		"Entries": func() error {
			for _, err := range a.Entries(ctx, "") {
				return err
			}
			return nil
		},
	}
	t.Run("calls", func(t *testing.T) {
		for name, call := range calls {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				require.ErrorIs(t, call(), ErrUnavailable)
			})
		}
	})
	// The same activity sells again once the server is back, though its scripts and
	// data are gone.
	require.NoError(t, p.Restart(ctx))
	require.NoError(t, a.Load(ctx, lostStock))
	_, err := a.Deduct(ctx, tea("o", "u", 1))
	require.NoError(t, err)
}

// Nothing is sent for what is invalid, and the error names the field.
func TestInvalidIsNotSent(t *testing.T) {
	_, rdb := redistest.Mini(t)
	sent := &sentCounter{}
	rdb.AddHook(sent)
	a := open(t, rdb, Options{})
	ctx := t.Context()
	require.NoError(t, a.Load(ctx, lostStock))
	before := sent.n
	long, many := strings.Repeat("x", 10<<10), make([]Item, 10_000)
	for i := range many {
		many[i] = Item{fmt.Sprint(i), 1}
	}
	orders := map[string]struct {
		order Order
		names string
	}{
		"no id":             {Order{User: "u", Items: []Item{{"tea", 1}}}, "Order.ID"},
		"id of 10 KB":       {Order{ID: long, User: "u", Items: []Item{{"tea", 1}}}, "Order.ID"},
		"id of 257 bytes":   {Order{ID: long[:257], User: "u", Items: []Item{{"tea", 1}}}, "Order.ID"},
		"no user":           {Order{ID: "o", Items: []Item{{"tea", 1}}}, "Order.User"},
		"user of 10 KB":     {Order{ID: "o", User: long, Items: []Item{{"tea", 1}}}, "Order.User"},
		"no items":          {Order{ID: "o", User: "u"}, "Order.Items"},
		"10,000 items":      {Order{ID: "o", User: "u", Items: many}, "Order.Items"},
		"101 items":         {Order{ID: "o", User: "u", Items: many[:101]}, "Order.Items"},
		"no sku":            {Order{ID: "o", User: "u", Items: []Item{{"tea", 1}, {"", 1}}}, "Order.Items[1].SKU"},
		"sku of 129 bytes":  {Order{ID: "o", User: "u", Items: []Item{{long[:129], 1}}}, "Order.Items[0].SKU"},
		"the same sku":      {Order{ID: "o", User: "u", Items: []Item{{"tea", 1}, {"cup", 1}, {"tea", 2}}}, "Order.Items[2].SKU"},
		"zero":              {Order{ID: "o", User: "u", Items: []Item{{"tea", 0}}}, "Order.Items[0].Qty"},
		"negative":          {Order{ID: "o", User: "u", Items: []Item{{"tea", -1}}}, "Order.Items[0].Qty"},
		"huge":              {Order{ID: "o", User: "u", Items: []Item{{"tea", maxQty + 1}}}, "Order.Items[0].Qty"},
		"huge together":     {Order{ID: "o", User: "u", Items: []Item{{"tea", maxQty}, {"cup", 1}}}, "Order.Items[1].Qty"},
		"the least integer": {Order{ID: "o", User: "u", Items: []Item{{"tea", -1 << 63}}}, "Order.Items[0].Qty"},
	}
	for name, c := range orders {
		t.Run(name, func(t *testing.T) {
			for _, partial := range []bool{false, true} {
				c.order.Partial = partial
				_, err := a.Deduct(ctx, c.order)
				require.ErrorIs(t, err, ErrInvalid)
				require.ErrorContains(t, err, c.names)
				require.Less(t, len(err.Error()), 1000)
				_, err = a.Reserve(ctx, c.order)
				require.ErrorIs(t, err, ErrInvalid)
			}
		})
	}
	for name, err := range map[string]error{
		"Confirm":         second(a.Confirm(ctx, Ref{"", "u"})),
		"Confirm's user":  second(a.Confirm(ctx, Ref{"o", ""})),
		"Cancel":          second(a.Cancel(ctx, Ref{long, "u"}, "")),
		"Cancel's reason": second(a.Cancel(ctx, Ref{"o", "u"}, long)),
		"Lookup":          second(a.Lookup(ctx, Ref{"o", long})),
		"Restock":         second(a.Restock(ctx, "", Item{"tea", 1})),
		"Restock nothing": second(a.Restock(ctx, "r")),
		"Restock -1":      second(a.Restock(ctx, "r", Item{"tea", -1})),
		"Load nothing":    a.Load(ctx, nil),
		"Load no sku":     a.Load(ctx, map[string]int64{"": 1}),
		"Load -1":         a.Load(ctx, map[string]int64{"x": -1}),
		"Load huge":       a.Load(ctx, map[string]int64{"x": maxQty + 1}),
		"Load long":       a.Load(ctx, map[string]int64{long: 1}),
		"Halt":            a.Halt(ctx, ""),
		"Halt long":       a.Halt(ctx, long),
		"Allow":           a.Allow(ctx, "u", ""),
	} {
		require.ErrorIs(t, err, ErrInvalid, name)
	}
	require.Equal(t, before, sent.n, "something was sent")
}

func second(_ Result, err error) error { return err }

// A sentCounter counts commands. Its client is used by one goroutine at a time.
type sentCounter struct{ n int }

func (c *sentCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *sentCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n++
		return next(ctx, cmd)
	}
}

func (c *sentCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n += len(cmds)
		return next(ctx, cmds)
	}
}

func TestNewRefuses(t *testing.T) {
	_, rdb := redistest.Mini(t)
	day := 24 * time.Hour
	for field, opts := range map[string]Options{
		"Hold":         {Hold: 99 * time.Millisecond},
		"Hold ":        {Hold: -time.Second},
		"Hold  ":       {Hold: 11 * 365 * day},
		"Retention":    {Hold: time.Hour, Retention: 69 * time.Minute},
		"ClosesAt":     {OpensAt: time.Now(), ClosesAt: time.Now().Add(-time.Hour)},
		"UserLimit":    {UserLimit: -1},
		"UserSKULimit": {UserSKULimit: maxQty + 1},
		"SoldOutFor":   {SoldOutFor: 2 * time.Second},
		"SoldOutFor ":  {SoldOutFor: -2},
	} {
		_, err := New(rdb, "sale", opts)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options."+strings.TrimSpace(field))
	}
	_, err := New(nil, "sale", Options{})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = New(rdb, "", Options{})
	require.ErrorIs(t, err, ErrInvalid)
	small := redis.NewClient(&redis.Options{Addr: rdb.Options().Addr, PoolSize: 3})
	defer small.Close()
	_, err = New(small, "sale", Options{})
	require.ErrorContains(t, err, "PoolSize")
	a, err := New(rdb, "sale", Options{Hold: 48 * time.Hour})
	require.NoError(t, err)
	require.Equal(t, 48*time.Hour+retryHorizon, a.opts.Retention, "the default follows a long hold")
}
