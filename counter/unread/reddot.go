package unread

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedDot tells whether there is something new in an area (a tab, a menu entry) since
// a user last looked: without a number, so that publishing costs one write for all
// users. Times are those of what was published, in milliseconds; two processes whose
// clocks differ cannot disagree about what a user has seen.
type RedDot struct{ marks marks }

// NewRedDot returns the red dots of one application.
func NewRedDot(rdb redis.UniversalClient, opts Options) (*RedDot, error) {
	s, err := newStore(rdb, opts)
	if err != nil {
		return nil, err
	}
	return &RedDot{marks{s}}, nil
}

// Publish says that something new came into an area at that time. Earlier and
// repeated times change nothing. One round trip.
func (d *RedDot) Publish(ctx context.Context, area string, at time.Time) error {
	if err := checkName("area", area); err != nil {
		return err
	}
	return d.marks.raise(ctx, "area", area, latest, at.UnixMilli())
}

// Seen says that a user saw an area as it was when its newest was published at that
// time: the time that Lit returned with the page, not now, lest something is missed
// that came meanwhile. The zero time, of an area where nothing was, changes nothing. One
// round trip.
func (d *RedDot) Seen(ctx context.Context, user, area string, at time.Time) error {
	if err := errors.Join(checkName("user", user), checkName("area", area)); err != nil {
		return err
	}
	if at.IsZero() {
		return nil
	}
	return d.marks.raise(ctx, "viewer", user, area, at.UnixMilli())
}

// Lit returns for each of up to 10,000 areas whether a user has not seen its newest,
// and when that was published; zero if nothing was. One round trip, O(areas).
func (d *RedDot) Lit(ctx context.Context, user string, areas []string) (lit []bool, newest []time.Time, err error) {
	if err := errors.Join(checkName("user", user), checkNames("area", areas)); err != nil {
		return nil, nil, err
	}
	published, seen, err := d.marks.compare(ctx, "area", areas, "viewer", user)
	if err != nil {
		return nil, nil, err
	}
	lit, newest = make([]bool, len(areas)), make([]time.Time, len(areas))
	for i, at := range published {
		if at > 0 {
			lit[i], newest[i] = at > seen[i], time.UnixMilli(at)
		}
	}
	return lit, newest, nil
}
