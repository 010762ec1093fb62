// Package gift is gifts in a room: the sender pays the receiver, everybody sees it, and
// where there is a PK the bar moves.
//
// Money is in SQL, and what is seen goes through Redis: a server may die between the
// two. So a job that finishes the gift is added before the money moves, and cancelled
// when all is done; a job that runs looks whether the gift was paid for. Everything in
// it goes by the gift's reference and may happen twice. Who asks again with the key of a
// gift whose job has ended shows nothing: who paid for it did, or the job.
package gift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spillway-go/spillway/delayqueue"
	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/pk"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
)

// A Gift is what can be given.
type Gift struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Fen   int64  `json:"fen"`
}

// Gifts are all there are.
var Gifts = []Gift{
	{"rose", "Rose", 100},
	{"heart", "Heart", 990},
	{"cake", "Cake", 6_600},
	{"car", "Car", 20_000}, // 200 yuan: a fifth of a PK
	{"rocket", "Rocket", 50_000},
}

func find(id string) (Gift, bool) {
	for _, g := range Gifts {
		if g.ID == id {
			return g, true
		}
	}
	return Gift{}, false
}

// finishAfter is when a job finishes a gift whose server has not; unpaidAfter when it
// gives up one that was not paid for: no payment takes so long.
const (
	finishAfter = 10 * time.Second
	unpaidAfter = time.Minute
)

// Options are what gifts need of other parts.
type Options struct {
	Wallet interface {
		PayFirst(ctx context.Context, from, to, fen int64, kind, ref string) (balance int64, first bool, err error)
	}
	Rooms interface {
		GetOpen(ctx context.Context, id int64) (room.Room, error)
	}
	PK interface {
		Get(ctx context.Context, room int64) (*pk.Bar, error)
		Gift(ctx context.Context, room, to, fen int64, key string) error
	}
	Announcer interface {
		Publish(ctx context.Context, room int64, t string, d any, c im.Class) error
	}
	Name func(ctx context.Context, uid int64) (string, error)
}

// The Counter is where gifts are bought.
type Counter struct {
	env  *infra.Env
	opts Options
	jobs *delayqueue.Queue
}

// New returns the counter.
func New(env *infra.Env, opts Options) (*Counter, error) {
	jobs, err := delayqueue.New(env.Redis, "gift", delayqueue.Options{Prefix: "liveshop", Logger: env.Log})
	return &Counter{env, opts, jobs}, err
}

// Routes registers the calls of this package.
func (c *Counter) Routes(m *api.Mux) {
	m.Public("GET /gifts", func(*api.Request) (any, error) { return Gifts, nil })
	m.User("POST /rooms/{id}/gifts", c.give)
}

// Run finishes what other servers, or this one in an earlier life, left unfinished.
func (c *Counter) Run(ctx context.Context) error {
	return c.jobs.Run(ctx, delayqueue.JSON(c.finish), delayqueue.RunOptions{Concurrency: 4})
}

// Close ends what New began. End Run first.
func (c *Counter) Close(ctx context.Context) error { return c.jobs.Close(ctx) }

// A Given is a gift that was given: the frame that everybody sees, and the job.
type Given struct {
	From  int64  `json:"from"`
	Name  string `json:"name"`
	To    int64  `json:"to"`
	Gift  string `json:"gift"`
	Title string `json:"title"`
	Count int64  `json:"count"`
	Fen   int64  `json:"fen"`
	Ref   string `json:"ref"`
}

// FrameID lets a gift that is announced twice be shown once.
func (g Given) FrameID() string { return "gift-" + g.Ref }

type job struct {
	Given
	Room  int64 `json:"room"`
	Added int64 `json:"added"` // ms
}

// give answers POST /rooms/{id}/gifts {gift,to,key}. The key is the sender's, and the
// same when asked again. Who is too poor is told so; nobody else hears of it.
func (c *Counter) give(r *api.Request) (any, error) {
	id, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	var in struct {
		Gift string `json:"gift"`
		To   int64  `json:"to"` // the host if 0
		Key  string `json:"key"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	g, ok := find(in.Gift)
	if !ok {
		return nil, api.NotFound("gift")
	}
	if in.Key == "" || len(in.Key) > 40 {
		return nil, api.Bad("key: want 1 to 40 characters, the same when asked again")
	}
	ctx := r.Context()
	v, err := c.opts.Rooms.GetOpen(ctx, id)
	if err != nil {
		return nil, err
	}
	if in.To == 0 {
		in.To = v.Host
	}
	if err := c.mayGet(ctx, v, in.To); err != nil {
		return nil, err
	}
	if in.To == r.UID {
		return nil, api.Bad("to: a gift is for somebody else")
	}
	name, err := c.opts.Name(ctx, r.UID)
	if err != nil {
		return nil, err
	}
	balance, err := c.buy(ctx, job{Room: id, Given: Given{
		From: r.UID, Name: name, To: in.To, Gift: g.ID, Title: g.Title, Count: 1, Fen: g.Fen,
		Ref: fmt.Sprintf("%d:%d:%s", id, r.UID, in.Key),
	}})
	switch {
	case errors.Is(err, account.ErrPoor):
		return nil, &api.Error{Status: 402, Code: "poor", Msg: "the balance is too low"}
	case errors.Is(err, account.ErrConflict):
		return nil, api.Conflict("key_used", "this key was another gift")
	}
	return map[string]int64{"balance": balance}, err
}

// mayGet: gifts go to the host, and to who challenges the host.
func (c *Counter) mayGet(ctx context.Context, v room.Room, to int64) error {
	if to == v.Host {
		return nil
	}
	bar, err := c.opts.PK.Get(ctx, v.ID)
	if err == nil && (bar == nil || bar.B != to) {
		return api.Bad("to: gifts are for the host, and for a challenger")
	}
	return err
}

func (c *Counter) buy(ctx context.Context, j job) (balance int64, err error) {
	j.Added = time.Now().UnixMilli()
	body, err := json.Marshal(j)
	if err != nil {
		return 0, err
	}
	id := j.Ref
	_, err = c.jobs.Add(ctx, delayqueue.Job{ID: id, Body: body, Delay: finishAfter})
	if errors.Is(err, delayqueue.ErrFinished) || errors.Is(err, delayqueue.ErrCancelled) {
		// Perhaps nobody paid then, and what is paid for now needs a job that can finish it.
		id = fmt.Sprintf("%s:%d", j.Ref, rand.Uint64())
		_, err = c.jobs.Add(ctx, delayqueue.Job{ID: id, Body: body, Delay: finishAfter})
	}
	waits := errors.Is(err, delayqueue.ErrDuplicate) // one asks again, and nobody has finished
	if err != nil && !waits {
		return 0, err
	}
	balance, first, err := c.opts.Wallet.PayFirst(ctx, j.From, j.To, j.Fen, "gift", j.Ref)
	if err == nil && (first || waits) {
		err = c.show(ctx, j)
	}
	refused := errors.Is(err, account.ErrPoor) || errors.Is(err, account.ErrConflict)
	if err != nil && (waits || !refused) {
		return 0, err // the job finishes what it is about, or who asks again does
	}
	if cancelled := c.jobs.Cancel(ctx, id); cancelled != nil && !gone(cancelled) {
		c.env.Log.Warn("gift is finished twice", "ref", j.Ref, "err", cancelled) // which shows nothing twice
	}
	return balance, err
}

func gone(err error) bool {
	return errors.Is(err, delayqueue.ErrActive) || errors.Is(err, delayqueue.ErrFinished) ||
		errors.Is(err, delayqueue.ErrNotFound) || errors.Is(err, delayqueue.ErrCancelled)
}

// show is what follows from a gift that was paid for. It may happen twice.
func (c *Counter) show(ctx context.Context, j job) error {
	if err := c.opts.Announcer.Publish(ctx, j.Room, "gift", j.Given, im.Reliable); err != nil {
		return err
	}
	return c.opts.PK.Gift(ctx, j.Room, j.To, j.Fen, j.Ref)
}

// finish handles the job of a gift that nobody finished.
func (c *Counter) finish(ctx context.Context, j job, _ *delayqueue.Delivery) error {
	var paid int // for this gift: the key may have been used for another one
	const ask = "SELECT COUNT(*) FROM wallet_log WHERE kind = 'gift' AND ref = ? AND uid = ? AND fen = ?"
	if err := c.env.DB.QueryRowContext(ctx, ask, j.Ref, j.To, j.Fen).Scan(&paid); err != nil {
		return fmt.Errorf("gift %s: %w", j.Ref, err)
	}
	switch age := time.Now().UnixMilli() - j.Added; {
	case paid > 0:
		return c.show(ctx, j)
	case age < unpaidAfter.Milliseconds():
		return delayqueue.Snooze(finishAfter)
	}
	return nil
}
