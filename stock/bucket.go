package stock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/script"
)

// A hot activity is several whole activities, its buckets, each under a hash tag of
// its own. The one that the user holds has no stock: it finds the bucket that an
// order belongs to (here), moves stock there (moves.go), and looks after what is on
// its way (watch.go).

// maxBuckets bounds what one look at all buckets costs.
const maxBuckets = 64

//go:embed plan.lua
var planLua string

var planScript = script.New(script.State, planLua)

// divide gives a its buckets.
func (a *Activity) divide() {
	opts := a.opts
	// One bucket alone knows neither what is sold out nor what came back.
	opts.SoldOutFor, opts.OnEvent = -1, nil
	a.looks = coalesce.New(a.flushLooks, coalesce.Options{MaxItems: 64 << 10})
	journals := opts.Journals(a.name)
	for i, space := range key.Spread(opts.Prefix, "stock", layout, a.name, opts.Buckets) {
		b := newActivity(a.rdb, a.name, opts, space)
		b.bucket, b.journal = i, journals[i]
		b.group = coalesce.New(b.flushMoves, coalesce.Options{MaxBytes: batchBytes})
		a.buckets = append(a.buckets, b)
	}
}

// wholes returns the activities that a is made of: its buckets, or itself.
func (a *Activity) wholes() []*Activity {
	if a.buckets == nil {
		return []*Activity{a}
	}
	return a.buckets
}

// home returns where the orders of user are settled.
func (a *Activity) home(user string) *Activity {
	if a.buckets == nil {
		return a
	}
	// FNV-1a, its bits mixed: part of the layout, as a home must never change.
	h := uint64(14695981039346656037)
	for i := range len(user) {
		h = (h ^ uint64(user[i])) * 1099511628211
	}
	h = (h ^ h>>32) * 0x9E3779B97F4A7C15
	return a.buckets[(h>>32)%uint64(len(a.buckets))]
}

// together calls f for all buckets at the same time, and joins their errors.
func together(buckets []*Activity, f func(b *Activity) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(buckets))
	for i, b := range buckets {
		wg.Go(func() { errs[i] = f(b) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// share returns what bucket i of n has of q units of a SKU; what cannot be divided
// falls to other buckets for other SKUs.
func share(sku string, q int64, i, n int) int64 {
	first := 0
	for _, c := range []byte(sku) {
		first += int(c)
	}
	part := q / int64(n)
	if int64((i+first)%n) < q%int64(n) {
		part++
	}
	return part
}

// loadBuckets fixes the figures of all buckets in one place before it loads any, so
// that two Loads with different figures cannot both be half done.
func (a *Activity) loadBuckets(ctx context.Context, items []Item) error {
	n := len(a.buckets)
	plan := func(only int) error {
		for i := 0; i < len(items); i += loadChunk {
			args := []any{n, only}
			for _, it := range items[i:min(len(items), i+loadChunk)] {
				args = append(args, it.SKU, it.Qty)
			}
			reply, err := planScript.Run(ctx, a.rdb, script.Call{Keys: a.keys.all[:1], Args: args})
			if err == nil {
				err = a.planned(reply)
			}
			if err != nil {
				return fmt.Errorf("stock: activity %q: %w", a.name, err)
			}
		}
		return nil
	}
	if len(items) > loadChunk {
		if err := plan(1); err != nil {
			return err
		}
	}
	if err := plan(0); err != nil {
		return err
	}
	return together(a.buckets, func(b *Activity) error {
		for i := 0; i < len(items); i += loadChunk {
			var part []Item
			for _, it := range items[i:min(len(items), i+loadChunk)] {
				part = append(part, Item{it.SKU, share(it.SKU, it.Qty, b.bucket, n)})
			}
			if _, err := b.do(ctx, newOp('L', '+', "load", "", part)); err != nil {
				return err
			}
		}
		return nil
	})
}

// planned tells what an answer of plan.lua means.
func (a *Activity) planned(reply any) error {
	if n, ok := reply.(int64); ok && n == 0 {
		return nil
	}
	r, _ := reply.([]any)
	if len(r) == 2 {
		if was, ok := r[1].(string); ok {
			return a.otherBuckets(was)
		}
	}
	if len(r) == 3 {
		return fmt.Errorf("%w: sku %q was loaded with %v units; Restock adds to it", ErrConflict, r[1], r[2])
	}
	return fmt.Errorf("%w: reply %v of plan.lua", ErrUnknown, reply)
}

func (a *Activity) otherBuckets(was string) error {
	return fmt.Errorf("%w: Options.Buckets %d, the activity was loaded with %s", ErrInvalid, a.opts.Buckets, was)
}

// wrongBuckets is the error of a SKU that was not loaded, if it was loaded with
// another number of buckets, or nil.
func (a *Activity) wrongBuckets(ctx context.Context) error {
	// Where the question fails, that the SKU was not loaded is answer enough.
	if was := a.rdb.HGet(ctx, a.keys.levels, "@buckets").Val(); was != "" && was != strconv.Itoa(len(a.buckets)) {
		return fmt.Errorf("stock: activity %q: %w", a.name, a.otherBuckets(was))
	}
	return nil
}

// restockBucket adds everything in one bucket, in one step that is idempotent as it
// is. From there it moves to where it is wanted.
func (a *Activity) restockBucket(ctx context.Context, opID string, items []Item) (Result, error) {
	b := a.home(opID)
	skus := make([]string, len(items))
	for i, it := range items {
		skus[i] = it.SKU
	}
	levels, err := a.stockOfBuckets(ctx, skus)
	if err != nil {
		return Result{}, err
	}
	for _, it := range items {
		l := levels[it.SKU]
		if l.Left+l.Reserved+l.Sold <= maxQty-it.Qty {
			continue
		}
		if _, err := b.do(ctx, newOp('S', '+', opID, "", nil)); errors.Is(err, ErrNotFound) {
			return Result{}, fmt.Errorf("stock: activity %q, id %q: %w: more than 2^52 units of sku %q", a.name, opID, ErrInvalid, it.SKU)
		}
	}
	res, err := b.do(ctx, newOp('A', '+', opID, "", items))
	a.memory.forget(items)
	return res, err
}

// stockOfBuckets adds the levels of all buckets, and what is on its way between them.
func (a *Activity) stockOfBuckets(ctx context.Context, skus []string) (map[string]Level, error) {
	levels := make([]map[string]Level, len(a.buckets))
	views := a.look(ctx, nil)
	err := together(a.buckets, func(b *Activity) (err error) {
		if err := views[b.bucket].err; err != nil {
			return a.readError(err)
		}
		levels[b.bucket], err = b.Stock(ctx, skus...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return addLevels(levels, onTheirWay(views)), nil
}

// addLevels adds what buckets have to what is on its way between them.
func addLevels(of []map[string]Level, on []transfer) map[string]Level {
	all := map[string]Level{}
	for _, levels := range of {
		for sku, l := range levels {
			sum := all[sku]
			all[sku] = Level{sum.Left + l.Left, sum.Reserved + l.Reserved, sum.Sold + l.Sold, sum.Version + l.Version}
		}
	}
	for _, t := range on {
		for _, it := range t.items {
			l, ok := all[it.SKU]
			if !ok {
				continue
			}
			if l.Left == 0 {
				// It may have arrived and been sold since it was seen, and these levels be those
				// of the sell-out, whose version that must not be.
				l.Version--
			}
			l.Left += it.Qty
			all[it.SKU] = l
		}
	}
	return all
}

var bucketEntryID = regexp.MustCompile(`^\d{1,2}/\d{1,20}-\d{1,20}$`)

func (a *Activity) entriesOfBuckets(ctx context.Context, from string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		buckets, after := a.buckets, ""
		if from != "" {
			number, id, _ := strings.Cut(from, "/")
			i, err := strconv.Atoi(number)
			if err != nil || i >= len(a.buckets) || !bucketEntryID.MatchString(from) {
				yield(Entry{}, fmt.Errorf("%w: from %q is not the ID of an Entry of %d buckets", ErrInvalid, from, len(a.buckets)))
				return
			}
			buckets, after = a.buckets[i:i+1], id
		}
		for _, b := range buckets {
			prefix := strconv.Itoa(b.bucket) + "/"
			for e, err := range b.Entries(ctx, after) {
				if err == nil {
					e.ID, e.Prev = prefix+e.ID, prefix+e.Prev
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

func (a *Activity) allowHome(ctx context.Context, users []string) error {
	of := make([][]string, len(a.buckets))
	for _, u := range users {
		i := a.home(u).bucket
		of[i] = append(of[i], u)
	}
	return together(a.buckets, func(b *Activity) error { return b.Allow(ctx, of[b.bucket]...) })
}

func (a *Activity) holdsOfBuckets(ctx context.Context) iter.Seq2[Hold, error] {
	return func(yield func(Hold, error) bool) {
		for _, b := range a.buckets {
			for h, err := range b.Holds(ctx) {
				if !yield(h, err) || err != nil {
					return
				}
			}
		}
	}
}

func (a *Activity) inspectBuckets(ctx context.Context) (Info, error) {
	infos := make([]Info, len(a.buckets))
	err := together(a.buckets, func(b *Activity) (err error) {
		infos[b.bucket], err = b.Inspect(ctx)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	planned, err := a.rdb.HLen(ctx, a.keys.levels).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Info{}, a.readError(err)
	}
	all := Info{SKUs: max(0, planned-1), LastEntries: map[string]string{}} // a field is the number of buckets
	for bucket, i := range infos {
		maps.Copy(all.LastEntries, i.LastEntries)
		all.OpenHolds += i.OpenHolds
		all.Entries += i.Entries
		if i.Halted != "" {
			all.Halted = i.Halted
		}
		if i.Forked != "" && all.Forked == "" {
			all.Forked = fmt.Sprintf("%d/%s", bucket, i.Forked)
		}
		if !i.NextDue.IsZero() && (all.NextDue.IsZero() || i.NextDue.Before(all.NextDue)) {
			all.NextDue = i.NextDue
		}
	}
	return all, nil
}

func (a *Activity) statsOfBuckets() Stats {
	all := Stats{
		FromMemory: a.stats.fromMemory.Load(), Insufficient: a.stats.insufficient.Load(),
		Events: a.stats.events.Load(), Transfers: a.stats.transfers.Load(), Failures: a.stats.failures.Load(),
	}
	for _, b := range a.buckets {
		s := b.Stats()
		all.Calls += s.Calls
		all.Batches += s.Batches
		all.Joined += s.Joined
		all.Overloaded += s.Overloaded
		all.Unknown += s.Unknown
		all.Failures += s.Failures
		all.Journaled += s.Journaled
		all.PendingCancels += s.PendingCancels
	}
	return all
}
