package im

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/gorilla/websocket"
)

// A Class is what may happen to a frame on a bad day.
type Class int

const (
	// Sampled frames may be dropped under load: figures that the next one replaces.
	Sampled Class = iota
	// Reliable frames reach every socket that stays, or resumes in time.
	Reliable
)

// The kinds of frames on their way between servers. A barrage is sampled like a figure,
// but has a number, and is stored.
const (
	figure   = 's'
	barrage  = 'c'
	reliable = 'r'
)

// A Named payload gives its frame an id of its own, so that one that is published
// again, because nobody knows whether it was before, is shown once.
type Named interface{ FrameID() string }

// A frame is one message to sockets.
type frame struct {
	kind byte
	from int64 // the user whose own barrage it is; 0: nobody's
	seq  int64 // 0: not numbered
	prev int64 // of a reliable frame of a room: the seq of the one before
	id   string
	text []byte

	prepared *websocket.PreparedMessage // encoded once for all sockets
}

// head is what a publisher knows of a frame: all of it but seq, prev and ts, which the
// script puts before it.
type head struct {
	Type string `json:"t"`
	ID   string `json:"id"`
	Room int64  `json:"room,omitempty"`
	Data any    `json:"d"`
}

// encode returns a frame's JSON without its opening brace, and its id.
func encode(t, fallback string, room int64, d any) (rest, id string, err error) {
	id = fallback
	if n, ok := d.(Named); ok {
		id = url.QueryEscape(n.FrameID()) // no spaces: ids stand on lines between servers
	}
	text, err := json.Marshal(head{t, id, room, d})
	if err != nil {
		return "", "", fmt.Errorf("im: frame %s: %w", t, err)
	}
	return string(text[1:]), id, nil
}

// direct returns a frame that does not pass through Redis.
func direct(kind byte, t, id string, room, now int64, d any) *frame {
	rest, id, err := encode(t, id, room, d)
	if err != nil {
		panic(err) // of this package's own payloads
	}
	return &frame{kind: kind, id: id, text: fmt.Appendf(nil, `{"ts":%d,%s`, now, rest)}
}

// line parses what publish.lua made of a frame: "<kind> <from> <seq> <prev> <id> <json>".
func line(s string) (*frame, error) {
	part := strings.SplitN(s, " ", 6)
	if len(part) != 6 || len(part[0]) != 1 {
		return nil, fmt.Errorf("im: no frame: %.80q", s)
	}
	f := &frame{kind: part[0][0], id: part[4], text: []byte(part[5])}
	var err [3]error
	f.from, err[0] = strconv.ParseInt(part[1], 10, 64)
	f.seq, err[1] = strconv.ParseInt(part[2], 10, 64)
	f.prev, err[2] = strconv.ParseInt(part[3], 10, 64)
	if err != [3]error{} || !strings.ContainsRune("scr", rune(f.kind)) {
		return nil, fmt.Errorf("im: no frame: %.80q", s)
	}
	return f, nil
}

// message returns the frame as sockets write it. Only the goroutine that holds the
// hub's lock calls it.
func (f *frame) message() *websocket.PreparedMessage {
	if f.prepared == nil {
		f.prepared, _ = websocket.NewPreparedMessage(websocket.TextMessage, f.text) // no error for text
	}
	return f.prepared
}

// A batch is what one call of publish.lua sent to this server: "room <id> <epoch>
// <prev>", and a line for each frame. prev is the last reliable frame before them.
type batch struct {
	room, epoch, prev int64
	frames            []*frame
}

func parseBatch(s string) (b batch, err error) {
	first, rest, _ := strings.Cut(s, "\n")
	if _, err := fmt.Sscanf(first, "room %d %d %d", &b.room, &b.epoch, &b.prev); err != nil {
		return batch{}, fmt.Errorf("im: no batch: %.80q: %w", first, err)
	}
	b.frames, err = parseLines(strings.Split(rest, "\n"))
	return b, err
}

func parseLines(lines []string) ([]*frame, error) {
	frames := make([]*frame, 0, len(lines))
	for _, s := range lines {
		f, err := line(s)
		if err != nil {
			return nil, err
		}
		frames = append(frames, f)
	}
	return frames, nil
}
