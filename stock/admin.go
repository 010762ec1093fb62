package stock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed drop.lua
var dropLua string

var dropScript = script.New(script.State, dropLua)

// Halt refuses new orders with ErrHalted, in every process, until Resume; the
// reason, 1 to 256 bytes, is told to each caller. Confirms, cancels, restocks and the
// release of holds go on. Buckets give nothing to each other any more, and what is on
// its way between them arrives. One round trip, for each bucket.
func (a *Activity) Halt(ctx context.Context, reason string) error {
	if err := checkID("reason", reason); err != nil {
		return err
	}
	for _, b := range a.buckets {
		if err := b.Halt(ctx, reason); err != nil {
			return err
		}
	}
	if a.buckets != nil {
		return nil
	}
	// Setting a constant twice is setting it once: no script needed.
	return a.adminError(a.rdb.HSet(ctx, a.keys.levels, "@halt", reason).Err())
}

// Resume ends a Halt. It does not end the halt of a journal that forked: Rebuild does.
func (a *Activity) Resume(ctx context.Context) error {
	for _, b := range a.buckets {
		if err := b.Resume(ctx); err != nil {
			return err
		}
	}
	if a.buckets != nil {
		return nil
	}
	return a.adminError(a.rdb.HDel(ctx, a.keys.levels, "@halt").Err())
}

// Allow names users who may order where Options.EligibleOnly is set. One round
// trip per thousand.
func (a *Activity) Allow(ctx context.Context, users ...string) error {
	for _, u := range users {
		if err := checkID("user", u); err != nil {
			return err
		}
	}
	if a.buckets != nil {
		return a.allowHome(ctx, users)
	}
	for part := range slices.Chunk(users, 1000) {
		members := make([]any, len(part))
		for i := range part {
			members[i] = part[i]
		}
		if err := a.rdb.SAdd(ctx, a.keys.users, members...).Err(); err != nil {
			return a.adminError(err)
		}
	}
	return nil
}

// Drop deletes the activity: stock, orders, holds and journal. Redis frees the
// memory in the background. One round trip, and one per bucket where there are
// some: no call may be under way then, and a Drop that failed must be repeated
// before the next Load.
func (a *Activity) Drop(ctx context.Context) error {
	for _, b := range a.buckets {
		if err := b.Drop(ctx); err != nil {
			return err
		}
	}
	_, err := dropScript.Run(ctx, a.rdb, script.Call{Keys: a.keys.all})
	if err != nil {
		return fmt.Errorf("stock: activity %q: %w", a.name, err)
	}
	return nil
}

// adminError names what failed in a command that may be repeated at will.
func (a *Activity) adminError(err error) error {
	if err == nil {
		return nil
	}
	var reply redis.Error
	if errors.As(err, &reply) { // Redis answered, and did not do it
		return fmt.Errorf("stock: activity %q: %w: %w", a.name, ErrUnavailable, err)
	}
	return fmt.Errorf("stock: activity %q: %w: %w", a.name, ErrUnknown, err)
}

// A Hold is an open reservation.
type Hold struct {
	Ref
	Items   []Item
	Expires time.Time
}

// Holds returns the open reservations in no order, while they change: one that is
// open all the while is returned at least once. An error ends the sequence. One
// round trip per some hundred holds.
func (a *Activity) Holds(ctx context.Context) iter.Seq2[Hold, error] {
	if a.buckets != nil {
		return a.holdsOfBuckets(ctx)
	}
	return func(yield func(Hold, error) bool) {
		cursor := uint64(0)
		for {
			fields, next, err := a.rdb.HScan(ctx, a.keys.holds, cursor, "", 200).Result()
			if err != nil {
				yield(Hold{}, a.readError(err))
				return
			}
			for i := 0; i+1 < len(fields); i += 2 {
				rec, err := parseRecord(fields[i+1])
				if err != nil {
					yield(Hold{}, err)
					return
				}
				field := reader{rest: fields[i]}
				h := Hold{Ref: Ref{ID: field.field(), User: rec.user}, Items: rec.granted, Expires: rec.due}
				if !yield(h, nil) {
					return
				}
			}
			if next == 0 {
				return
			}
			cursor = next
		}
	}
}

// Info is what Redis says of an activity as a whole.
type Info struct {
	SKUs      int64     // loaded
	Halted    string    // the reason, or empty
	Forked    string    // the entry that a sink has and the journal lost, as in Entries, or empty
	OpenHolds int64     // reservations neither ended nor released
	NextDue   time.Time // when the next hold ends; zero if none does
	Entries   int64     // in the journal
	LastEntry string    // id of the newest; empty where there are buckets
	Sunk      string    // id of the newest that every sink has; empty if there is none
	// LastEntries are the ids of the newest entries by journal, to be compared with a
	// Sink.Checkpoint; see Options.Journals. A journal without entries is missing.
	LastEntries map[string]string
}

// Inspect asks Redis about the activity. One round trip.
func (a *Activity) Inspect(ctx context.Context) (Info, error) {
	if a.buckets != nil {
		return a.inspectBuckets(ctx)
	}
	pipe := a.rdb.Pipeline()
	meta := pipe.HMGet(ctx, a.keys.levels, "@", "@halt", "@journal", "@rebuilt")
	fields := pipe.HLen(ctx, a.keys.levels)
	entries := pipe.XLen(ctx, a.keys.stream)
	if _, err := pipe.Exec(ctx); err != nil {
		return Info{}, a.readError(err)
	}
	info := Info{Entries: entries.Val(), SKUs: fields.Val()}
	for _, v := range meta.Val() {
		if v != nil {
			info.SKUs-- // not the field of a SKU
		}
	}
	info.Halted, _ = meta.Val()[1].(string)
	if sinks, ok := meta.Val()[2].(string); ok {
		info.Sunk, sinks, _ = strings.Cut(sinks, " ")
		info.Sunk = strings.TrimPrefix(info.Sunk, "0-0")
		if forked, _, _ := strings.Cut(sinks, " "); forked != "-" {
			info.Forked = forked[strings.LastIndexByte(forked, ':')+1:]
		}
	}
	packed, _ := meta.Val()[0].(string)
	m, err := parseMeta(packed)
	if err != nil {
		return info, fmt.Errorf("stock: activity %q: %w", a.name, err)
	}
	info.LastEntry, info.OpenHolds, info.NextDue = m.last, m.open, m.due
	if m.last != "" && m.last != "0-0" {
		info.LastEntries = map[string]string{a.journal: m.last}
	}
	return info, nil
}

// Stats are counters of this process since New.
type Stats struct {
	Calls          uint64 // that went to Redis
	Batches        uint64 // round trips that carried them
	Joined         uint64 // calls that shared an identical call on its way
	FromMemory     uint64 // orders answered "sold out" from memory
	Insufficient   uint64 // orders that Redis answered so
	Unknown        uint64 // calls that ended in ErrUnknown
	Overloaded     uint64 // calls refused because too many were waiting
	Events         uint64 // crossings told to this process
	Transfers      uint64 // of stock between buckets, begun or finished by this process
	Journaled      uint64 // journal ops brought to sinks
	Failures       uint64 // of background work, all tried again
	PendingCancels int    // cancels waiting for Redis to have memory again
}

type counters struct {
	fromMemory, insufficient, unknown, events, transfers, journaled, failures atomic.Uint64
}

// Stats returns the counters. It does no I/O.
func (a *Activity) Stats() Stats {
	if a.buckets != nil {
		return a.statsOfBuckets()
	}
	g := a.group.Stats()
	return Stats{
		Calls: g.Items, Batches: g.Flights, Joined: g.Joined, Overloaded: g.Overloaded,
		FromMemory: a.stats.fromMemory.Load(), Insufficient: a.stats.insufficient.Load(),
		Unknown: a.stats.unknown.Load(), Events: a.stats.events.Load(), Journaled: a.stats.journaled.Load(),
		Failures:       a.stats.failures.Load(),
		PendingCancels: a.undone.len(),
	}
}
