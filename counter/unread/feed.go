package unread

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// FeedUnread counts the new posts of those whom a user follows, by comparing how many
// posts each has made with a snapshot from the user's last visit. A post costs one
// write, whatever the number of followers.
//
// Its known error: a post that is deleted before it was seen is counted still, since
// totals are of all posts ever made; of somebody followed since the last visit nothing
// counts as new until the next one; and of somebody followed again, what came since the
// last visit while followed.
type FeedUnread struct{ marks marks }

// NewFeedUnread returns the unread counts of one application's feeds.
func NewFeedUnread(rdb redis.UniversalClient, opts Options) (*FeedUnread, error) {
	s, err := newStore(rdb, opts)
	if err != nil {
		return nil, err
	}
	return &FeedUnread{marks{s}}, nil
}

// Posted says how many posts an author has made so far, which the author's database
// knows. Late and repeated calls change nothing. One round trip.
func (f *FeedUnread) Posted(ctx context.Context, author string, total int64) error {
	if err := checkName("author", author); err != nil {
		return err
	}
	return f.marks.raise(ctx, "author", author, latest, total)
}

// Count returns how many posts those whom a user follows, up to 10,000, have made
// since the user's last Visit. One round trip, O(following).
func (f *FeedUnread) Count(ctx context.Context, user string, following []string) (int64, error) {
	n, _, err := f.compare(ctx, user, following)
	return n, err
}

// Visit takes the snapshot: what those whom the user follows have posted so far is
// seen. It returns what Count would have returned. What is posted between its two
// round trips is new to the next Count. O(following), 500 to a script.
func (f *FeedUnread) Visit(ctx context.Context, user string, following []string) (int64, error) {
	n, totals, err := f.compare(ctx, user, following)
	if err != nil {
		return 0, err
	}
	if err := f.marks.raiseAll(ctx, "follower", user, following, totals); err != nil {
		return 0, fmt.Errorf("user %q: %w", user, err)
	}
	return n, nil
}

// compare returns how many posts are new to a user, and the totals they came from.
func (f *FeedUnread) compare(ctx context.Context, user string, following []string) (n int64, totals []int64, err error) {
	if err := errors.Join(checkName("user", user), checkNames("author", following)); err != nil {
		return 0, nil, err
	}
	totals, seen, err := f.marks.compare(ctx, "author", following, "follower", user)
	for i := range totals {
		if seen[i] >= 0 {
			n += max(0, totals[i]-seen[i])
		}
	}
	return n, totals, err
}
