package im

import (
	"encoding/json"
	"fmt"
	"sync"
)

// A Follower is what a client keeps in mind of a room's frames, to resume, and to hold
// the servers to their promise: bots and tests have one each. Its methods may be called
// from several goroutines.
type Follower struct {
	mu     sync.Mutex
	seq    int64 // the highest seen
	tail   int64 // the last reliable one
	epoch  int64
	synced bool               // there was a hello
	shown  [2]map[string]bool // ids of the last 128 to 256 frames: what comes again comes soon
	report FollowerReport
}

// A FollowerReport is what a Follower saw.
type FollowerReport struct {
	Frames     int    // without those that came again
	Reliable   int    // of these, the numbered ones that may not be lost
	Again      int    // came before, under the same id
	Resumed    int    // hellos that said that nothing was missed
	StartOver  int    // hellos that said otherwise, but the first
	Lost       int    // reliable frames that are missing between two that came
	FirstFault string // the first such place
}

// Received is a frame as a client reads it.
type Received struct {
	Type string          `json:"t"`
	ID   string          `json:"id"`
	Seq  int64           `json:"seq"`
	Prev *int64          `json:"prev"`
	Room int64           `json:"room"`
	TS   int64           `json:"ts"`
	Data json.RawMessage `json:"d"`
}

// Acknowledge reports whether a client owes an ack for the frame.
func (r Received) Acknowledge() bool { return r.Prev != nil || r.Room == 0 }

// See reads a frame, and reports whether it is new: not one that came before.
func (f *Follower) See(text []byte) (r Received, fresh bool, err error) {
	if err := json.Unmarshal(text, &r); err != nil {
		return r, false, fmt.Errorf("im: frame: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Type == "hello" {
		return r, true, f.greet(r)
	}
	fresh = !f.shown[0][r.ID] && !f.shown[1][r.ID]
	if f.shown[0] == nil || len(f.shown[0]) == 128 {
		f.shown = [2]map[string]bool{{}, f.shown[0]}
	}
	f.shown[0][r.ID] = true
	if fresh {
		f.report.Frames++
	} else {
		f.report.Again++
	}
	f.seq = max(f.seq, r.Seq)
	if r.Prev != nil && r.Seq > f.tail {
		f.report.Reliable++
		if *r.Prev != f.tail && f.synced {
			f.report.Lost++
			if f.report.FirstFault == "" {
				f.report.FirstFault = fmt.Sprintf("%s %s is %d after %d; the one before was %d", r.Type, r.ID, r.Seq, *r.Prev, f.tail)
			}
		}
		f.tail = r.Seq
	}
	return r, fresh, nil
}

func (f *Follower) greet(r Received) error {
	var h hello
	if err := json.Unmarshal(r.Data, &h); err != nil {
		return fmt.Errorf("im: hello: %w", err)
	}
	switch {
	case h.Recovered: // the chain goes on where it was
		f.report.Resumed++
	default:
		if f.synced {
			f.report.StartOver++
		}
		f.tail, f.seq = h.Tail, h.Seq
	}
	f.epoch, f.synced = h.Epoch, true
	return nil
}

// Query returns what a connection adds to its URL to resume; empty at first.
func (f *Follower) Query() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seq == 0 {
		return ""
	}
	return fmt.Sprintf("&seq=%d&epoch=%d", f.seq, f.epoch)
}

// Report returns what was seen so far.
func (f *Follower) Report() FollowerReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.report
}
