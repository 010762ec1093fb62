package room

import (
	"context"
	"errors"
	"slices"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// What a host can be granted by the operator.
const (
	Star = "star" // rooms that are kept warm
	Rain = "rain" // red-packet rain
)

// grant answers POST /admin/grants.
func (r *Rooms) grant(q *api.Request) (any, error) {
	var in struct {
		UID   int64  `json:"uid"`
		Grant string `json:"grant"`
	}
	if err := q.Decode(&in); err != nil {
		return nil, err
	}
	if in.UID <= 0 || !slices.Contains([]string{Star, Rain}, in.Grant) {
		return nil, api.Bad("want a uid, and as grant %s or %s", Star, Rain)
	}
	return in, r.Grant(q.Context(), in.UID, in.Grant)
}

// Grant lets a host have something.
func (r *Rooms) Grant(ctx context.Context, uid int64, what string) error {
	if _, err := r.name(ctx, uid); errors.Is(err, cache.ErrNotFound) {
		return api.NotFound("user")
	} else if err != nil {
		return err
	}
	_, err := r.env.DB.ExecContext(ctx, r.env.InsertNew("grants", "uid", "what"), uid, what)
	return err
}

// Granted reports whether a host has it.
func (r *Rooms) Granted(ctx context.Context, uid int64, what string) (bool, error) {
	var n int
	err := r.env.DB.QueryRowContext(ctx, "SELECT COUNT(*) FROM grants WHERE uid = ? AND what = ?", uid, what).Scan(&n)
	return n > 0, err
}
