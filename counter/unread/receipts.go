package unread

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed mark.lua
var markLua string

var markScript = script.New(script.State, markLua)

// maxIndex bounds a bitmap to 128 KiB.
const maxIndex = 1 << 20

// maxMembers is how many bitmaps a count reads by member.
const maxMembers = 1000

// A Layout is what a bitmap of Receipts is of.
type Layout int

const (
	// ByMessage has a bitmap for each message with a bit for each member: members/8
	// bytes, up to twice that when it grew bit by bit, and some 90 a message. A count
	// is one BITCOUNT. Take it for large rooms, where messages ask how many have read
	// them.
	ByMessage Layout = iota
	// ByMember has a bitmap for each member with a bit for each message: messages/8
	// bytes, up to twice that, and some 90 a member. A count asks every member, so that
	// a room has at most 1,000. Take it for small rooms with many messages: 10 members
	// and 1,000 messages take 3.4 KB, against 96 KB.
	ByMember
)

// Receipts remember who has read which message of a room, one bit each. Members and
// messages are numbered densely from 0, to below 2^20, by the application.
type Receipts struct {
	store  store
	layout Layout
}

// NewReceipts returns the receipts of one application, in the layout in which they
// always were.
func NewReceipts(rdb redis.UniversalClient, layout Layout, opts Options) (*Receipts, error) {
	if layout != ByMessage && layout != ByMember {
		return nil, fmt.Errorf("%w: layout %d, want ByMessage or ByMember", ErrInvalid, layout)
	}
	s, err := newStore(rdb, opts)
	if err != nil {
		return nil, err
	}
	return &Receipts{s, layout}, nil
}

// Mark says that a member has read messages, up to 500. One round trip.
func (r *Receipts) Mark(ctx context.Context, room string, member int, messages ...int) error {
	if err := r.check(room, member); err != nil {
		return err
	}
	if len(messages) > perCall {
		return fmt.Errorf("%w: %d messages, want at most %d", ErrInvalid, len(messages), perCall)
	}
	if len(messages) == 0 {
		return nil
	}
	keys, bits := make([]string, len(messages)), make([]any, len(messages))
	for i, m := range messages {
		if err := checkIndex("message", m); err != nil {
			return err
		}
		var bit int
		keys[i], bit = r.bit(room, member, m)
		bits[i] = bit
	}
	return r.store.run(ctx, markScript, keys, bits...)
}

// Has reports whether a member has read a message. One round trip.
func (r *Receipts) Has(ctx context.Context, room string, member, message int) (bool, error) {
	if err := r.check(room, member); err != nil {
		return false, err
	}
	if err := checkIndex("message", message); err != nil {
		return false, err
	}
	var has *redis.IntCmd
	err := r.store.read(ctx, func(pipe redis.Pipeliner) {
		k, bit := r.bit(room, member, message)
		has = pipe.GetBit(ctx, k, int64(bit))
	})
	return err == nil && has.Val() == 1, err
}

// Count returns how many members have read a message, of a room that has so many. One
// round trip; O(members), and by member at most 1,000 of them.
func (r *Receipts) Count(ctx context.Context, room string, message, members int) (int, error) {
	if err := r.check(room, 0); err != nil {
		return 0, err
	}
	if err := checkIndex("message", message); err != nil {
		return 0, err
	}
	if most := map[Layout]int{ByMessage: maxIndex, ByMember: maxMembers}[r.layout]; members < 0 || members > most {
		return 0, fmt.Errorf("%w: %d members, want 0 to %d", ErrInvalid, members, most)
	}
	var counts []*redis.IntCmd
	err := r.store.read(ctx, func(pipe redis.Pipeliner) {
		if r.layout == ByMessage {
			k, _ := r.bit(room, 0, message)
			counts = append(counts, pipe.BitCount(ctx, k, nil))
			return
		}
		for m := range members {
			k, bit := r.bit(room, m, message)
			counts = append(counts, pipe.GetBit(ctx, k, int64(bit)))
		}
	})
	n := 0
	for _, c := range counts {
		n += int(c.Val())
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// bit returns where the bit of a member and a message is. All bitmaps of a room
// share a slot.
func (r *Receipts) bit(room string, member, message int) (bitmap string, bit int) {
	if r.layout == ByMessage {
		return r.store.key("message:"+strconv.Itoa(message), room), member
	}
	return r.store.key("member:"+strconv.Itoa(member), room), message
}

func (r *Receipts) check(room string, member int) error {
	if err := checkName("room", room); err != nil {
		return err
	}
	return checkIndex("member", member)
}

func checkIndex(what string, i int) error {
	if i < 0 || i >= maxIndex {
		return fmt.Errorf("%w: %s %d, want 0 to 2^20 - 1", ErrInvalid, what, i)
	}
	return nil
}
