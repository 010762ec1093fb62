package unread

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	_, rdb := redistest.Mini(t)
	var trips redistest.Trips
	rdb.AddHook(&trips)
	opts := Options{Prefix: redistest.Prefix(t)}
	conversations, err := NewUnread(rdb, opts)
	require.NoError(t, err)
	dots, err := NewRedDot(rdb, opts)
	require.NoError(t, err)
	feed, err := NewFeedUnread(rdb, opts)
	require.NoError(t, err)
	receipts, err := NewReceipts(rdb, ByMessage, opts)
	require.NoError(t, err)
	visitors, err := NewVisitors(rdb, opts)
	require.NoError(t, err)
	ctx, now := t.Context(), time.UnixMilli(1_800_000_000_000)
	var authors []string
	for i := range 501 {
		authors = append(authors, fmt.Sprint("author-", i))
	}
	rows := redistest.Costs(t)
	must := func(call func() error) func() { return func() { require.NoError(t, call()) } }
	seq := int64(0)
	next := func() int64 { seq++; return seq }
	for name, call := range map[string]func() error{
		"Sent":    func() error { return conversations.Sent(ctx, "c", next()) },
		"Read":    func() error { return conversations.Read(ctx, "ann", "c", next()) },
		"Publish": func() error { return dots.Publish(ctx, "a", now.Add(time.Duration(next()))) },
		"Seen":    func() error { return dots.Seen(ctx, "ann", "a", now.Add(time.Duration(next()))) },
		"Posted":  func() error { return feed.Posted(ctx, authors[0], next()) },
		"Mark":    func() error { return receipts.Mark(ctx, "room", 1, 1, 2, 3) },
		"Add":     func() error { return visitors.Add(ctx, "page", "ann", "bob") },
		"Counts":  func() error { _, err := conversations.Counts(ctx, "ann", authors); return err },
		"Lit":     func() error { _, _, err := dots.Lit(ctx, "ann", authors); return err },
		"Count":   func() error { _, err := feed.Count(ctx, "ann", authors); return err },
		"Has":     func() error { _, err := receipts.Has(ctx, "room", 1, 2); return err },
	} {
		rows.HoldTrips(t, &trips, name, must(call))
	}
	assert.Equal(t, "1, 1 per 500 authors", rows.Row(t, "Visit")["round trips"])
	for n, want := range map[int]int64{3: 2, 500: 2, 501: 3} {
		assert.Equal(t, want, trips.Of(must(func() error { _, err := feed.Visit(ctx, "ann", authors[:n]); return err })), n)
	}
	rows.HoldTrips(t, &trips, "Count", must(func() error { _, err := receipts.Count(ctx, "room", 2, 100); return err }))
	rows.HoldTrips(t, &trips, "Count", must(func() error { _, err := visitors.Count(ctx, "page", "other"); return err }))
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	ctx, now := t.Context(), time.UnixMilli(1_800_000_000_000)
	must := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	conversations, err := NewUnread(rdb, Options{})
	require.NoError(t, err)
	must(nil, conversations.Sent(ctx, "c", 5))
	must(nil, conversations.Read(ctx, "ann", "c", 3))
	must(conversations.Counts(ctx, "ann", []string{"c"}))
	dots, err := NewRedDot(rdb, Options{})
	require.NoError(t, err)
	must(nil, dots.Publish(ctx, "a", now))
	must(nil, dots.Seen(ctx, "ann", "a", now))
	_, _, err = dots.Lit(ctx, "ann", []string{"a"})
	require.NoError(t, err)
	feed, err := NewFeedUnread(rdb, Options{})
	require.NoError(t, err)
	must(nil, feed.Posted(ctx, "bob", 7))
	must(feed.Visit(ctx, "ann", []string{"bob"}))
	must(feed.Count(ctx, "ann", []string{"bob"}))
	for _, layout := range []Layout{ByMessage, ByMember} {
		receipts, err := NewReceipts(rdb, layout, Options{})
		require.NoError(t, err)
		must(nil, receipts.Mark(ctx, "room", 1, 1, 2))
		must(receipts.Has(ctx, "room", 1, 2))
		must(receipts.Count(ctx, "room", 2, 100))
	}
	visitors, err := NewVisitors(rdb, Options{})
	require.NoError(t, err)
	must(nil, visitors.Add(ctx, "page", "ann"))
	must(visitors.Count(ctx, "page"))
}
