package lock

import (
	"context"
	"errors"
	"fmt"

	_ "embed"
	"time"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed members.lua
	membersLua string
	//go:embed join.lua
	joinLua string
	//go:embed extend.lua
	extendLua string
	//go:embed leave.lua
	leaveLua string

	joinScript   = script.New(script.Token, membersLua, joinLua)
	extendScript = script.New(script.State, membersLua, extendLua)
	leaveScript  = script.New(script.Token, membersLua, leaveLua)
)

// A room is what several may hold at a time, and where the goroutines of this
// process queue for it: one asks Redis for the first, then for the next.
//
// The promise: whoever is inside is a member in Redis, with a term of its own that
// nobody else's end touches. It would be broken by a grant handed to a waiter that
// wants something else (to write, not to read), and by a member that outlives its
// lease.
type room struct {
	l       *Locker
	id      string // its place in Locker.rooms
	name    string
	size    int // of a semaphore; 0 is a read-write lock
	keys    []string
	channel string

	line // line.mu guards everything below
	gone bool
	busy bool // a contest runs
}

// join takes a place in the room of that name.
func (l *Locker) join(ctx context.Context, kind, name string, size int, w *waiter) (context.Context, *Lease, error) {
	if name == "" {
		return nil, nil, fmt.Errorf("%w: name is empty", ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock: %s %.200q: %w", kind, name, err)
	}
	leaseCtx, cancel := context.WithCancelCause(ctx)
	w.cancel, w.served = cancel, make(chan struct{})
	s, err := l.queueFor(ctx, kind, name, size, w)
	if err != nil {
		cancel(nil)
		return nil, nil, fmt.Errorf("lock: %s %.200q: %w", kind, name, err)
	}
	return leaseCtx, s, nil
}

func (l *Locker) queueFor(ctx context.Context, kind, name string, size int, w *waiter) (*Lease, error) {
	r, err := l.room(kind, name, size)
	if err != nil {
		return nil, err
	}
	if w.try && r.stuck {
		r.mu.Unlock()
		return nil, ErrNotAcquired
	}
	r.queue.push(w)
	if !r.busy {
		r.busy, r.stuck, r.trouble = true, false, nil
		c := &contest{l: l, line: &r.line, prize: r, channel: r.channel, renewal: r.newTerm}
		if !l.group.Go(func(ctx context.Context) { c.run(ctx, 0) }) {
			r.fail(ErrClosed, false)
			r.ended()
		}
	}
	r.mu.Unlock()
	return r.await(ctx, l, w)
}

// room returns the room of that kind, name and size, locked. Two sizes are two
// rooms here; Redis refuses the second.
func (l *Locker) room(kind, name string, size int) (*room, error) {
	id := fmt.Sprint(kind, size, " ", name)
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return nil, ErrClosed
		}
		r := l.rooms[id]
		if r == nil {
			space := key.New(l.opts.Prefix, "lock", layout, name)
			r = &room{
				l: l, id: id, name: name, size: size, line: line{left: make(chan struct{}, 1)},
				keys: []string{space.Key(kind), space.Key(kind + "-members")}, channel: space.Key(kind + "-events"),
			}
			l.rooms[id] = r
		}
		l.mu.Unlock()
		r.mu.Lock()
		if !r.gone {
			return r, nil
		}
		r.mu.Unlock()
	}
}

// shut fails those who wait, for Close.
func (r *room) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail(ErrClosed, false)
	r.nudge()
}

// ask is prize.ask.
func (r *room) ask(ctx context.Context, token string, writes, marks bool) (answer, error) {
	reply, err := joinScript.Run(ctx, r.l.rdb, script.Call{Keys: r.keys, Args: []any{
		token, r.l.opts.TTL.Milliseconds(), r.size, flag(writes), flag(marks), r.channel,
	}})
	if no := new(script.Refused); errors.As(err, &no) {
		return answer{}, fmt.Errorf("%w: it has %s, want %d", ErrSize, no.Detail, r.size)
	}
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(reply)
}

// won is prize.won: the contest goes on for the next in the line.
func (r *room) won(ctx context.Context, t *term, got answer, _ time.Time, writes bool) bool {
	r.mu.Lock()
	w := r.queue.first
	if w == nil || w.writes != writes {
		r.mu.Unlock()
		if err := r.end(ctx, t); err != nil {
			r.l.troubled("give back what nobody waited for", err)
		}
		return false
	}
	r.queue.remove(w)
	r.stuck, r.trouble = false, nil
	s := r.l.newLease(r.name, got.fence, t, r, w.cancel)
	t.lost = func(cause error) { r.lose(s, cause) }
	w.lease = s
	close(w.served)
	r.mu.Unlock()
	r.l.wheel.add(t)
	return false
}

func (r *room) newTerm(token string) *term {
	return &term{
		token: token, renewal: extendScript,
		call: script.Call{Keys: r.keys, Args: []any{token, r.l.opts.TTL.Milliseconds()}},
	}
}

func (r *room) lose(s *Lease, cause error) {
	r.l.gaveBack()
	if s.lose(cause) {
		r.l.stats.lost.Add(1)
	}
}

// giveBack is home.giveBack.
func (r *room) giveBack(ctx context.Context, s *Lease, doubt bool) error {
	if doubt {
		ctx, cancel := lifetime.Within(ctx, endFor) // ctx may have ended
		defer cancel()
		return r.leave(ctx, s.term.token, false, true)
	}
	return r.end(ctx, s.term)
}

// end gives a term back.
func (r *room) end(ctx context.Context, t *term) error {
	if !t.end() {
		return ErrLost
	}
	defer r.l.gaveBack()
	r.l.wheel.remove(t)
	within, cancel := lifetime.Within(ctx, endFor) // ctx may have ended
	defer cancel()
	err := r.leave(within, t.token, false, false)
	if !isAnswer(err) {
		r.l.persist(t.until(), func(ctx context.Context) error { return r.leave(ctx, t.token, false, true) })
	}
	return err
}

// undo is prize.undo.
func (r *room) undo(ctx context.Context, token string, doubt bool) error {
	return r.leave(ctx, token, r.size == 0, doubt)
}

// leave tells Redis that the token is no longer a member, nor wants to write.
func (r *room) leave(ctx context.Context, token string, intent, doubt bool) error {
	reply, err := leaveScript.Run(ctx, r.l.rdb, script.Call{Keys: r.keys, Resend: 3, Args: []any{
		token, flag(intent), "", r.channel,
	}})
	switch {
	case err != nil:
		return err
	case reply == int64(1):
		return nil
	case reply == int64(0) && !doubt:
		return ErrLost
	}
	return errOver
}

// ended is prize.ended.
func (r *room) ended() {
	r.gone, r.busy = true, false
	r.l.mu.Lock()
	delete(r.l.rooms, r.id)
	r.l.mu.Unlock()
}
