package im

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Counts are what became of frames that were handed out to sockets, one for each socket
// of a frame: each is delivered, sampled out, left behind in a socket that closed, or
// still queued. They say nothing about one another but through the queues: each is
// counted where it happens.
type Counts struct {
	Fanout    int64 `json:"fanout"`
	Delivered int64 `json:"delivered"`
	Sampled   int64 `json:"sampled"`
	Left      int64 `json:"left"`
	Queued    int64 `json:"queued"`

	Evicted     int64 `json:"evicted"`     // sockets that were too slow
	Retried     int64 `json:"retried"`     // frames sent again, for want of an acknowledgement
	Unacked     int64 `json:"unacked"`     // and never acknowledged
	Resumed     int64 `json:"resumed"`     // sockets that got all that they had missed
	Unrecovered int64 `json:"unrecovered"` // that could not
	Repairs     int64 `json:"repairs"`     // reads of a room's log, since pub/sub had lost something
	Sockets     int64 `json:"sockets"`
}

func (c *Counts) add(o Counts) {
	c.Fanout += o.Fanout
	c.Delivered += o.Delivered
	c.Sampled += o.Sampled
	c.Left += o.Left
	c.Queued += o.Queued
	c.Evicted += o.Evicted
	c.Retried += o.Retried
	c.Unacked += o.Unacked
	c.Resumed += o.Resumed
	c.Unrecovered += o.Unrecovered
	c.Repairs += o.Repairs
	c.Sockets += o.Sockets
}

// Counts returns the counts of this server: of one moment, since nothing is handed out
// meanwhile.
func (h *Hub) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.counts
	for s := range h.sockets {
		c.add(s.tally())
	}
	c.Sockets = int64(len(h.sockets))
	return c
}

func (s *socket) tally() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Queued = int64(len(s.queue) + s.writing)
	return c
}

// sayCounts stores the counts where Check finds them, beside those of the servers that
// were here before.
func (h *Hub) sayCounts(ctx context.Context) {
	text, err := json.Marshal(h.Counts())
	if err == nil {
		err = h.rdb.HSet(ctx, countsKey, h.server+"/"+h.born, text).Err()
	}
	h.warn(ctx, "im: counts", err)
}

// Check returns what contradicts "delivered + sampled out = fan-out" in the counts of all
// servers, also of those that are gone, and what it has looked at. A server that is
// killed leaves the counts of its last five seconds behind, which add up as well. That
// nothing reliable was lost is for clients to see: a Follower does.
func Check(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	lines, err := env.Redis.HGetAll(ctx, countsKey).Result()
	if err != nil {
		return nil, "", fmt.Errorf("im: counts: %w", err)
	}
	var sum Counts
	for server, text := range lines {
		var c Counts
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return nil, "", fmt.Errorf("im: counts of %s: %w", server, err)
		}
		if got := c.Delivered + c.Sampled + c.Left + c.Queued; got != c.Fanout {
			wrong = append(wrong, fmt.Sprintf("server %s handed out %d frames, and %d became something", server, c.Fanout, got))
		}
		sum.add(c)
	}
	return wrong, fmt.Sprintf("%d delivered + %d sampled out + %d left in closed sockets + %d queued = %d handed out, by %d servers",
		sum.Delivered, sum.Sampled, sum.Left, sum.Queued, sum.Fanout, len(lines)), nil
}
