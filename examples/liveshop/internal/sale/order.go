package sale

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/stock"
)

const (
	tokenKept = 30 * time.Minute // unused; and used, behind the hold of its order
	maxLines  = 20
)

// codeEnded refuses what was on sale.
const codeEnded = "ended"

const tooMany = "that is more than each user may buy"

var (
	errClosed    = api.Conflict("closed", "the room sells nothing any more")
	errRepairing = &api.Error{Status: http.StatusServiceUnavailable, Code: "repairing", RetryAfter: time.Second,
		Msg: "the stock is being rebuilt: try again with the same order_id"}
)

// tokenKey says whose the number of an order is; claimKey what a user ordered with it,
// which may be a stranger's claim.
func tokenKey(id int64) string { return "liveshop:order:{" + strconv.FormatInt(id, 10) + "}" }

func claimKey(id, uid int64) string { return tokenKey(id) + ":" + strconv.FormatInt(uid, 10) }

// Token returns the number of an order that may be placed, by this user, within half
// an hour. Placed twice it is one order.
func (s *Sale) Token(ctx context.Context, uid int64) (int64, error) {
	n, err := s.ids.Next(ctx)
	if err != nil {
		return 0, err
	}
	id, err := s.shuffle.Permute(n)
	if err != nil {
		return 0, err
	}
	key := tokenKey(id)
	return id, down(s.env.Together(ctx, key, func(p redis.Pipeliner) { p.Set(ctx, key, uid, tokenKept) }))
}

// A Placed is an order that got something.
type Placed struct {
	OrderID int64    `json:"order_id"`
	State   string   `json:"state"`
	Items   []Priced `json:"items"`
	Failed  []Priced `json:"failed"` // what there was not enough of
	Fen     int64    `json:"fen"`
	Expires int64    `json:"expires_at"` // ms; until then it wants to be paid
}

// Place orders. Of several products it takes those that can be had in full. The same
// again, in any process, gets the same answer, also when the room has closed since, for
// half an hour behind the hold since it was last asked.
func (s *Sale) Place(ctx context.Context, uid, id, room int64, lines []Line) (Placed, error) {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return Placed{}, err
	}
	lines = slices.SortedFunc(slices.Values(lines), func(a, b Line) int { return strings.Compare(a.SKU, b.SKU) })
	if err := s.eligible(v, uid, lines); tooLate(err) {
		return s.before(ctx, v, uid, id, room, lines, err)
	} else if err != nil {
		return Placed{}, err
	}
	first, err := s.claim(ctx, uid, id, canonical(room, lines))
	if err != nil {
		return Placed{}, err
	}
	l, err := s.of(ctx, room)
	if err != nil {
		return Placed{}, err
	}
	order := stock.Order{
		ID: strconv.FormatInt(id, 10), User: strconv.FormatInt(uid, 10),
		Partial: len(lines) > 1,
		Retry:   !first, // the answer may not come from memory: the first click may have got the last unit
	}
	for _, line := range lines {
		order.Items = append(order.Items, stock.Item{SKU: line.SKU, Qty: line.Qty})
	}
	res, err := l.stock.Reserve(ctx, order)
	if err != nil {
		return Placed{}, refusal(err)
	}
	if !res.Replayed {
		s.orders.Add(1)
		s.tidy(ctx, uid, room, res.Items)
	}
	return v.placed(id, res), nil
}

// before returns the answer that an order got which would be refused by now; if it was not
// placed before, or got nothing, no.
func (s *Sale) before(ctx context.Context, v shelf, uid, id, room int64, lines []Line, no error) (Placed, error) {
	if what, err := s.claimed(ctx, uid, id); err != nil {
		return Placed{}, err
	} else if what != canonical(room, lines) {
		return Placed{}, no
	}
	l, err := s.of(ctx, room)
	if err != nil {
		return Placed{}, err
	}
	res, err := l.stock.Lookup(ctx, payment{order: id, uid: uid}.stockRef())
	switch {
	case errors.Is(err, stock.ErrNotFound):
		return Placed{}, no
	case err == nil && stateOf(res.State) == Cancelled:
		err = stock.ErrCancelled
	}
	if err != nil {
		return Placed{}, refusal(err)
	}
	return v.placed(id, res), nil
}

// placed is what a buyer is told of an order that got something.
func (s *shelf) placed(id int64, res stock.Result) Placed {
	p := Placed{OrderID: id, State: stateOf(res.State)}
	if !res.Expires.IsZero() {
		p.Expires = res.Expires.UnixMilli()
	}
	all := s.goods()
	p.Items, p.Fen = price(linesOf(res.Items), all)
	p.Failed, _ = price(linesOf(res.Missing), all)
	return p
}

func (s *shelf) goods() map[string]goods {
	all := make(map[string]goods, len(s.Items))
	for _, it := range s.Items {
		all[it.SKU] = goods{it.Title, it.Fen}
	}
	return all
}

// eligible judges an order by what this process knows, before it costs anything.
func (s *Sale) eligible(v shelf, uid int64, lines []Line) error {
	switch {
	case v.State != stateOpen:
		return errClosed
	case v.Host == uid:
		return api.Forbidden("hosts do not buy in their own rooms")
	case len(lines) < 1 || len(lines) > maxLines:
		return api.Bad("items: %d, want 1 to %d", len(lines), maxLines)
	}
	now := s.now()
	seen := make(map[string]bool, len(lines))
	for _, line := range lines {
		it := v.item(line.SKU)
		switch {
		case it == nil:
			return api.NotFound(fmt.Sprintf("product in this room: %q", line.SKU))
		case it.Elsewhere:
			return api.Conflict("elsewhere", line.SKU+" is sold elsewhere")
		case seen[line.SKU]:
			return api.Bad("items: %s is there twice", line.SKU)
		case line.Qty < 1 || line.Qty > maxQty:
			return api.Bad("items: %d of %s, want 1 to %d", line.Qty, line.SKU, maxQty)
		case v.PerUser > 0 && line.Qty > v.PerUser:
			return &api.Error{Status: http.StatusConflict, Code: "limit", Msg: tooMany, Data: line}
		case it.Opens > now:
			return &api.Error{Status: http.StatusConflict, Code: "not_open", Msg: line.SKU + " is not on sale yet",
				RetryAfter: time.Duration(it.Opens-now) * time.Millisecond}
		case it.Closes > 0 && it.Closes <= now:
			return api.Conflict(codeEnded, line.SKU+" is not on sale any more")
		}
		seen[line.SKU] = true
	}
	return nil
}

// tooLate reports whether an order that is refused may have been good before.
func tooLate(err error) bool {
	no := new(api.Error)
	return errors.As(err, &no) && (no == errClosed || no.Code == codeEnded)
}

// claim takes the token for what is ordered with it, and reports whether this is the
// first time. One round trip.
func (s *Sale) claim(ctx context.Context, uid, id int64, what string) (first bool, err error) {
	if id < 1 || id >= idDomain {
		return false, errNoToken
	}
	token, claim, kept := tokenKey(id), claimKey(id, uid), tokenKept+s.opts.Hold
	var owner, was *redis.StringCmd
	var set *redis.BoolCmd
	err = s.env.Together(ctx, token, func(p redis.Pipeliner) {
		owner = p.GetEx(ctx, token, kept)
		set = p.SetNX(ctx, claim, what, kept)
		p.Expire(ctx, claim, kept)
		was = p.Get(ctx, claim)
	})
	switch {
	case err != nil:
		return false, down(err)
	case owner.Val() == "": // no token, or a forgotten one
		_ = s.env.Redis.Del(ctx, claim) // else it goes with its TTL
		return false, errNoToken
	case owner.Val() != strconv.FormatInt(uid, 10):
		return false, errNoToken
	case was.Val() != what:
		return false, api.Conflict("conflict", "this order_id was used for another order")
	}
	return set.Val(), nil
}

// claimed returns what a user ordered with a token; empty if nothing, or if it is not theirs.
func (s *Sale) claimed(ctx context.Context, uid, id int64) (what string, err error) {
	var owner, was *redis.StringCmd
	err = s.env.Together(ctx, tokenKey(id), func(p redis.Pipeliner) {
		owner, was = p.Get(ctx, tokenKey(id)), p.Get(ctx, claimKey(id, uid))
	})
	if err != nil || owner.Val() != strconv.FormatInt(uid, 10) {
		return "", down(err)
	}
	return was.Val(), nil
}

var errNoToken = &api.Error{Status: http.StatusNotFound, Code: "no_token", Msg: "ask for an order_id first: POST /orders/token"}

// tidy takes what was ordered out of the cart. It may fail: it is a convenience.
func (s *Sale) tidy(ctx context.Context, uid, room int64, items []stock.Item) {
	skus := make([]string, len(items))
	for i, it := range items {
		skus[i] = it.SKU
	}
	key := cartKey(room, uid)
	if err := s.env.Together(ctx, key, func(p redis.Pipeliner) { p.HDel(ctx, key, skus...) }); err != nil {
		s.env.Log.Info("cart stays as it is", "uid", uid, "room", room, "err", err)
	}
}

// linesOf returns items as an order has them.
func linesOf(items []stock.Item) []Line {
	lines := make([]Line, len(items))
	for i, it := range items {
		lines[i] = Line{SKU: it.SKU, Qty: it.Qty}
	}
	return lines
}

// canonical writes a request down, so that two can be compared.
func canonical(room int64, lines []Line) string {
	var b strings.Builder
	b.WriteString(strconv.FormatInt(room, 10))
	for _, l := range lines {
		b.WriteString(" " + l.SKU + ":" + strconv.FormatInt(l.Qty, 10))
	}
	return b.String()
}

func stateOf(state stock.State) string {
	switch state {
	case stock.Reserved:
		return Pending
	case stock.Confirmed:
		return Paid
	}
	return Cancelled
}

// refusal is what a buyer is told of an order that got nothing.
func refusal(err error) error {
	no := &api.Error{Status: http.StatusConflict}
	insufficient, limit := new(stock.InsufficientError), new(stock.LimitError)
	switch {
	case errors.As(err, &insufficient):
		no.Code, no.Msg = "sold_out", "sold out"
		no.Data = map[string]any{"sku": insufficient.SKU, "left": insufficient.Left}
	case errors.As(err, &limit):
		no.Code, no.Msg = "limit", tooMany
		no.Data = map[string]any{"sku": limit.SKU, "have": limit.Have, "limit": limit.Limit}
	case errors.Is(err, stock.ErrConflict):
		no.Code, no.Msg = "conflict", "this order_id was used for another order"
	case errors.Is(err, stock.ErrExpired), errors.Is(err, stock.ErrCancelled):
		no.Code, no.Msg = "cancelled", "the order was cancelled: ask for a new order_id"
	case errors.Is(err, stock.ErrHalted), errors.Is(err, stock.ErrNoSKU):
		// Forked, or empty after a FLUSHALL; or closed a moment ago, which the shelf will
		// show when the buyer comes again.
		return errRepairing
	case errors.Is(err, stock.ErrContended):
		return &api.Error{Status: http.StatusServiceUnavailable, Code: "contended", RetryAfter: time.Second,
			Msg: "the last units are on the move: try again with the same order_id"}
	case errors.Is(err, stock.ErrJournalFull):
		return &api.Error{Status: http.StatusServiceUnavailable, Code: "backlog", Msg: "too many orders wait to be written down", RetryAfter: 5 * time.Second}
	default:
		return err
	}
	return no
}

// roomOf returns the room of a user's order: from Redis, or, when that does not know,
// from SQL.
func (s *Sale) roomOf(ctx context.Context, uid, id int64) (room int64, err error) {
	what, err := s.claimed(ctx, uid, id)
	if err != nil {
		return 0, err
	}
	if what != "" {
		text, _, _ := strings.Cut(what, " ")
		return strconv.ParseInt(text, 10, 64)
	}
	err = s.env.DB.QueryRowContext(ctx, "SELECT room FROM orders WHERE order_id = ? AND uid = ?", id, uid).Scan(&room)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoOrder
	}
	return room, err
}

var errNoOrder = api.NotFound("order")
