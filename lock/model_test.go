package lock

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/script"
)

// A model is what a lock should be: one holder, an end, a fence that grows.
type model struct {
	holder string
	ends   time.Time
	fence  int64 // of the last grant
	fair   bool
}

func (m *model) live() bool { return m.holder != "" && time.Now().Before(m.ends) }

// A step compares one call with the model; it returns what differs.
func (m *model) acquire(token string, ttl time.Duration, got answer) error {
	switch {
	case m.live() && m.holder == token:
		if !got.granted || got.fence != m.fence {
			return fmt.Errorf("%+v for its holder, who has fence %d", got, m.fence)
		}
	case m.live():
		if got.granted {
			return fmt.Errorf("granted to %s while %s holds it", token, m.holder)
		}
		if left := time.Until(m.ends); got.left < left || got.left > left+time.Millisecond {
			return fmt.Errorf("%v left, want %v", got.left, left)
		}
	case !got.granted && m.fair && got.left <= turnEvery:
		// It is, or has just become, the turn of one that waits.
	case !got.granted:
		return fmt.Errorf("a free lock was not granted to %s", token)
	case got.fence <= m.fence:
		return fmt.Errorf("fence %d after %d", got.fence, m.fence)
	default:
		m.holder, m.ends, m.fence = token, time.Now().Add(ttl), got.fence
	}
	return nil
}

// A step is one call of a history.
type step struct {
	Op    string
	Who   int
	Waits bool
	Sleep time.Duration
}

func steps(t *rapid.T) []step {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			Op:    rapid.SampledFrom([]string{"acquire", "acquire", "renew", "release", "force", "sleep"}).Draw(t, "op"),
			Who:   rapid.IntRange(0, 2).Draw(t, "who"),
			Waits: rapid.Bool().Draw(t, "waits"),
			Sleep: time.Duration(rapid.IntRange(1, 15_000).Draw(t, "ms")) * time.Millisecond,
		}
	}), 1, 40).Draw(t, "steps")
}

// play plays calls on a Locker's scripts beside the model. change, if not nil,
// breaks what a call answered, as a negative control.
func play(t *testing.T, l *Locker, steps []step, change func(op string, granted *answer, err *error)) error {
	m := &model{fair: l.opts.Fair}
	k := l.keysOf("a")
	tokens := []string{"a.1", "b.1", "c.1"}
	n := 1
	for _, s := range steps {
		i, token := s.Who, tokens[s.Who]
		switch s.Op {
		case "acquire":
			got, err := l.acquire(t.Context(), k, token, s.Waits)
			if change != nil {
				change(s.Op, &got, &err)
			}
			if err == nil {
				err = m.acquire(token, l.opts.TTL, got)
			}
			if err != nil {
				return err
			}
		case "renew":
			reply, err := renewScript.Run(t.Context(), l.rdb, l.renewCall(k, token))
			mine := m.live() && m.holder == token
			if err != nil || (reply == int64(1)) != mine {
				return fmt.Errorf("renew: %v, %w, want %v", reply, err, mine)
			}
			if mine {
				m.ends = time.Now().Add(l.opts.TTL)
			}
		case "release":
			_, err := l.release(t.Context(), k, token, m.fence, false)
			if change != nil {
				change(s.Op, nil, &err)
			}
			mine := m.live() && m.holder == token
			turn := m.fair && !m.live() && err == nil // it gave up its turn
			if !turn && (mine != (err == nil) || !mine && !errors.Is(err, ErrLost)) {
				return fmt.Errorf("release by %s: %w, want %v", token, err, mine)
			}
			if mine {
				m.holder = ""
				if _, err := l.release(t.Context(), k, token, m.fence, false); err != nil {
					return fmt.Errorf("released again: %w", err)
				}
				if got, err := l.acquire(t.Context(), k, token, false); err != nil || got.granted {
					return fmt.Errorf("a late request of a spent token: %+v, %w", got, err)
				}
			}
			n++
			tokens[i] = fmt.Sprintf("%c.%d", token[0], n)
		case "force":
			if m.live() {
				if err := l.force(t.Context(), k, m.holder); err != nil {
					return err
				}
				m.holder = ""
			}
			n++
			tokens[i] = fmt.Sprintf("%c.%d", token[0], n)
		case "sleep":
			time.Sleep(s.Sleep)
		}
	}
	return nil
}

// inBubble plays one history on a server of its own, in virtual time.
func inBubble(t *testing.T, opts Options, steps []step, change func(string, *answer, *error)) (err error) {
	opts.Prefix = "p"
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		err = play(t, open(t, b.Client(), opts), steps, change)
	})
	return err
}

func TestHistories(t *testing.T) {
	for _, fair := range []bool{false, true} {
		rapid.Check(t, func(r *rapid.T) {
			if err := inBubble(t, Options{Fair: fair}, steps(r), nil); err != nil {
				r.Fatal(err)
			}
		})
	}
}

// The negative control: histories notice a lock that grants twice, one whose fence
// stands still, and a release that claims what it does not know.
func TestHistoriesCatchWrongAnswers(t *testing.T) {
	for name, change := range map[string]func(string, *answer, *error){
		"grants twice": func(op string, got *answer, _ *error) {
			if op == "acquire" {
				got.granted = true
			}
		},
		"fence stands still": func(op string, got *answer, _ *error) {
			if op == "acquire" && got.granted {
				got.fence = 1
			}
		},
		"release by guess": func(op string, _ *answer, err *error) {
			if op == "release" {
				*err = nil
			}
		},
	} {
		caught := false
		rapid.Check(t, func(r *rapid.T) {
			caught = caught || inBubble(t, Options{}, steps(r), change) != nil
		})
		require.True(t, caught, name)
	}
}

func FuzzReply(f *testing.F) {
	f.Add(int64(1), int64(2), int64(3), int64(4), 4, "")
	f.Add(int64(0), int64(2), int64(3), int64(4), 2, "x")
	f.Fuzz(func(t *testing.T, a, b, c, d int64, n int, s string) {
		reply := []any{a, b, c, d, s}
		if n >= 0 && n < len(reply) {
			reply = reply[:n]
		}
		got, err := parseAnswer(reply)
		if err != nil {
			require.ErrorIs(t, err, script.ErrUnknown)
			require.Zero(t, got)
		}
		_, err = parseAnswer(s)
		require.Error(t, err)
	})
}
