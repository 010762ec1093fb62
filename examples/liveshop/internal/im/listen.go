package im

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	largestFrame = 4096 // bytes that a client may send at a time
	longest      = 100  // characters of a barrage
)

// request is a frame of a client.
type request struct {
	Type string          `json:"t"`
	ID   string          `json:"id"`
	Seq  int64           `json:"seq"`
	Data json.RawMessage `json:"d"`
}

// listen reads the client's frames until the connection ends, or nothing came for 15 s:
// a client that lives answers the pings.
func (s *socket) listen(ctx context.Context) {
	alive := func(string) error { return s.conn.SetReadDeadline(time.Now().Add(gone)) }
	s.conn.SetReadLimit(largestFrame)
	s.conn.SetPongHandler(alive)
	_ = alive("")
	for {
		kind, text, err := s.conn.ReadMessage()
		if err != nil {
			return
		}
		_ = alive("")
		var q request
		if kind != websocket.TextMessage || json.Unmarshal(text, &q) != nil {
			continue
		}
		if q.Type == "ack" {
			s.acked(q.ID)
			continue
		}
		if !s.asks.take(time.Now(), 1) {
			return // no page sends so much
		}
		switch q.Type {
		case "barrage":
			s.hub.warn(ctx, "im: barrage", s.barrage(ctx, q.Data))
		case "read":
			s.hub.warn(ctx, "im: read", s.hub.markRead(ctx, s, q.Seq))
		case "ping":
			s.reply("pong", nil)
		}
	}
}

// reply sends a frame to this socket alone.
func (s *socket) reply(t string, d any) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.send(s, direct(figure, t, s.hub.id(), s.room, now(), d))
}

type said struct {
	UID  int64  `json:"uid"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// barrage sends what a user wrote to the room: two a second, a hundred characters,
// without banned words.
func (s *socket) barrage(ctx context.Context, d json.RawMessage) error {
	var v struct{ Text string }
	if json.Unmarshal(d, &v) != nil || !utf8.ValidString(v.Text) {
		return nil
	}
	text := strings.TrimSpace(v.Text)
	switch {
	case text == "":
		return nil
	case utf8.RuneCountInString(text) > longest:
		s.reply("system", map[string]string{"text": "too long"})
		return nil
	case s.hub.opts.Barrage != nil && !s.hub.opts.Barrage():
		s.reply("system", map[string]string{"text": "barrage is switched off"})
		return nil
	case !s.talk.take(time.Now(), 1):
		s.reply("system", map[string]string{"text": "slow down"})
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := s.hub.publish(ctx, s.room, barrage, s.uid, "barrage", said{s.uid, s.name, s.hub.words.mask(text)})
	if err != nil {
		s.reply("system", map[string]string{"text": "not sent"})
	}
	return err
}
