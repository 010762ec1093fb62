package im

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// waitingNotes is how many notes may wait, and perNote how many go together.
const (
	waitingNotes = 8192
	perNote      = 200
)

// A note is a frame on its way to the sockets of a user.
type note struct {
	uid  int64
	text string
}

func (h *Hub) note(uid int64, t string, d any) (note, error) {
	rest, id, err := encode(t, h.id(), 0, d)
	user := strconv.FormatInt(uid, 10)
	return note{uid, "user " + user + "\nr 0 0 0 " + id + ` {"ts":` + strconv.FormatInt(now(), 10) + "," + rest}, err
}

// Tell sends a frame to the sockets that a user has, on every server. There may be
// none: then nothing happens, and the user learns it from the page's next question.
// Two round trips.
func (h *Hub) Tell(ctx context.Context, uid int64, t string, d any) error {
	n, err := h.note(uid, t, d)
	if err != nil {
		return err
	}
	return h.tell(ctx, []note{n})
}

// Notify is Tell soon, without waiting, together with others: for who is in the middle
// of something. A note is lost if thousands wait, or the process dies: notes save a
// question, and no page may rely on one.
func (h *Hub) Notify(uid int64, t string, d any) {
	n, err := h.note(uid, t, d)
	if err == nil {
		select {
		case h.notes <- n:
			return
		default:
			err = errors.New("too many notes wait")
		}
	}
	h.log.Warn("im: notify", "uid", uid, "type", t, "err", err)
}

// runNotes sends what Notify took, and what is left when ctx ends.
func (h *Hub) runNotes(ctx context.Context) {
	var batch []note
	for {
		select {
		case n := <-h.notes:
			batch = append(batch[:0], n)
		case <-ctx.Done():
			if len(h.notes) == 0 {
				return
			}
			continue
		}
		for len(batch) < perNote && len(h.notes) > 0 {
			batch = append(batch, <-h.notes) // nobody else takes
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		h.warn(last, "im: notes", h.tell(last, batch), "lost", len(batch))
		cancel()
	}
}

func (h *Hub) tell(ctx context.Context, notes []note) error {
	servers := make([]*redis.StringSliceCmd, len(notes))
	_, err := h.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, n := range notes {
			servers[i] = p.SMembers(ctx, userKey(n.uid))
		}
		return nil
	})
	if err == nil {
		_, err = h.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, n := range notes {
				for _, s := range servers[i].Val() {
					p.Publish(ctx, channels+s, n.text)
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("im: tell: %w", err)
	}
	return nil
}
