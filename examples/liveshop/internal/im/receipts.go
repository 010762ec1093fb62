package im

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

//go:embed member.lua
var memberLua string

var member = redis.NewScript(memberLua)

const (
	keepReceipts = 90 * 24 * time.Hour
	mostRead     = 500     // messages that one receipt marks, the latest ones
	mostReaders  = 1000    // sockets of a room with receipts: in a larger one nobody asks who has read
	mostMessages = 1 << 20 // of a room that have receipts
)

// Conversation is what counter/unread calls a room.
func Conversation(room int64) string { return fmt.Sprintf("room-%d", room) }

// markRead says that a socket's user has seen a room's messages up to seq: to the
// unread counts, and to the receipts of the messages that came since the user entered.
// A client says so every few seconds; more than once a second is ignored.
func (h *Hub) markRead(ctx context.Context, s *socket, seq int64) error {
	h.mu.Lock()
	crowd := true
	if r := h.rooms[s.room]; r != nil {
		seq = min(seq, r.seq) // nobody has read what was not sent
		crowd = r.online > mostReaders
	}
	h.mu.Unlock()
	if seq <= s.read || !s.reads.take(time.Now(), 1) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := h.unread.Read(ctx, strconv.FormatInt(s.uid, 10), Conversation(s.room), seq); err != nil {
		return err
	}
	if !crowd {
		if err := h.receipt(ctx, s, seq); err != nil {
			return err
		}
	}
	s.read = seq
	return nil
}

func (h *Hub) receipt(ctx context.Context, s *socket, seq int64) error {
	var messages []int
	for m := max(s.read+1, seq-mostRead+1); m <= min(seq, mostMessages-1); m++ {
		messages = append(messages, int(m))
	}
	if len(messages) == 0 {
		return nil
	}
	number, err := member.Run(ctx, h.rdb, []string{keysOf(s.room).members}, s.uid, keepReceipts.Milliseconds()).Int()
	if err != nil {
		return wrap("member of room", s.room, err)
	}
	return h.receipts.Mark(ctx, Conversation(s.room), number, messages...)
}

// readers answers GET /rooms/{id}/read?seq=: how many have read a message, of those who
// read anything in the room.
func (h *Hub) readers(r *api.Request) (any, error) {
	room, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	seq, err := strconv.Atoi(r.URL.Query().Get("seq"))
	if err != nil || seq < 1 || seq >= mostMessages {
		return nil, api.Bad("seq is the number of a message")
	}
	members, err := h.rdb.HLen(r.Context(), keysOf(room).members).Result()
	if err != nil {
		return nil, wrap("members of room", room, err)
	}
	n, err := h.receipts.Count(r.Context(), Conversation(room), seq, int(members))
	return map[string]int64{"read": int64(n), "members": members}, err
}

// Sent tells the unread counts how many messages rooms have. Late and repeated calls
// change nothing.
func (h *Hub) Sent(ctx context.Context, room, seq int64) error {
	return h.unread.Sent(ctx, Conversation(room), seq)
}

// Unread returns how many messages of each room a user has not read.
func (h *Hub) Unread(ctx context.Context, uid int64, rooms []int64) ([]int64, error) {
	names := make([]string, len(rooms))
	for i, id := range rooms {
		names[i] = Conversation(id)
	}
	if len(names) == 0 {
		return nil, nil
	}
	n, err := h.unread.Counts(ctx, strconv.FormatInt(uid, 10), names)
	if err != nil {
		return nil, errors.Join(errors.New("im: unread"), err)
	}
	return n, nil
}
