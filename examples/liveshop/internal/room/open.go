package room

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
)

// open answers POST /rooms. A host who has an open room is told which: the second
// click on the button, too, ends in the room.
func (r *Rooms) open(q *api.Request) (any, error) {
	var in struct {
		Title string `json:"title"`
		Kind  string `json:"kind"`
	}
	if err := q.Decode(&in); err != nil {
		return nil, err
	}
	in.Title = strings.TrimSpace(in.Title)
	if n := utf8.RuneCountInString(in.Title); n < 1 || n > 80 {
		return nil, api.Bad("title: want 1 to 80 characters")
	}
	if in.Kind == "" {
		in.Kind = Normal
	}
	if in.Kind != Normal && in.Kind != PK {
		return nil, api.Bad("kind: want %s or %s", Normal, PK)
	}
	return r.Open(q.Context(), q.UID, in.Title, in.Kind)
}

// Open opens a room, or returns the one that the host has open.
func (r *Rooms) Open(ctx context.Context, host int64, title, kind string) (Room, error) {
	have, err := r.ofHost(ctx, host)
	if err != nil || have.ID != 0 {
		return have, err
	}
	star, err := r.Granted(ctx, host, Star)
	if err != nil {
		return Room{}, err
	}
	id, err := r.ids.Next(ctx)
	if err != nil {
		return Room{}, err
	}
	v := Room{ID: id, Host: host, Title: title, Kind: kind, Star: star, Open: true, Opened: time.Now().UnixMilli()}
	for _, f := range r.opening { // before anybody can see the room: its shelf is full from the first moment
		if err := f(ctx, v); err != nil {
			return Room{}, r.undo(ctx, v, fmt.Errorf("open room %d: %w", id, err))
		}
	}
	res, err := r.env.DB.ExecContext(ctx, r.env.InsertNew("rooms", "id", "host", "live", "title", "kind", "star", "opened_ms", "closed_ms"),
		v.ID, v.Host, v.Host, v.Title, v.Kind, star, v.Opened, 0)
	if err != nil {
		return Room{}, r.undo(ctx, v, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 { // another click was faster
		if err == nil {
			have, err = r.ofHost(ctx, host)
		}
		return have, r.undo(ctx, v, err)
	}
	if err := r.rooms.Set(ctx, id, v); err != nil { // somebody may have asked for this id before
		r.env.Log.Warn("room is not cached", "room", id, "err", err)
	}
	if err := r.dots.Publish(ctx, "live", time.UnixMilli(v.Opened)); err != nil {
		r.env.Log.Warn("no red dot", "room", id, "err", err) // a dot too few is no reason to fail
	}
	return v, nil
}

// mine answers GET /rooms/mine: the room that the user has open, or null.
func (r *Rooms) mine(q *api.Request) (any, error) {
	v, err := r.ofHost(q.Context(), q.UID)
	if err != nil || v.ID == 0 {
		return map[string]any{"room": nil}, err
	}
	return map[string]any{"room": v}, nil
}

// ofHost returns the open room of a host; the zero Room if there is none.
func (r *Rooms) ofHost(ctx context.Context, host int64) (Room, error) {
	v, err := scan(r.env.DB.QueryRowContext(ctx, "SELECT "+columns+" FROM rooms WHERE live = ?", host))
	if errors.Is(err, sql.ErrNoRows) {
		return Room{}, nil
	}
	return v, err
}

// undo takes back what was prepared for a room that did not come to be. It runs also
// when nobody knows whether that was done, or whether the row is there, and then closes
// it. Where it does not get through, what was prepared is found later; see package sale.
func (r *Rooms) undo(ctx context.Context, v Room, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if cause != nil {
		_, err := r.env.DB.ExecContext(ctx, "UPDATE rooms SET closed_ms = ?, live = NULL WHERE id = ?", time.Now().UnixMilli(), v.ID)
		cause = errors.Join(cause, err)
	}
	for _, f := range r.closing {
		if err := f(ctx, v); err != nil {
			r.env.Log.Warn("undo of a room", "room", v.ID, "err", err)
		}
	}
	return cause
}

// close answers POST /rooms/{id}/close.
func (r *Rooms) close(q *api.Request) (any, error) {
	id, err := q.ID("id")
	if err != nil {
		return nil, err
	}
	ctx := q.Context()
	v, err := r.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if v.Host != q.UID {
		return nil, api.Forbidden("only the host closes the room")
	}
	// Closing twice does all of it twice: the first call may have got stuck half-way.
	const set = "UPDATE rooms SET closed_ms = CASE WHEN closed_ms = 0 THEN ? ELSE closed_ms END, live = NULL WHERE id = ?"
	if _, err := r.env.DB.ExecContext(ctx, set, time.Now().UnixMilli(), id); err != nil {
		return nil, err
	}
	if err := r.rooms.Delete(ctx, id); err != nil {
		return nil, err
	}
	if v, err = r.Get(ctx, id); err != nil {
		return nil, err
	}
	for _, f := range r.closing {
		if err := f(ctx, v); err != nil {
			return nil, fmt.Errorf("close room %d: %w", id, err)
		}
	}
	return v, r.messages.Publish(ctx, id, "room", map[string]string{"state": "closed"}, im.Reliable)
}
