// Package feed is what hosts write to those who follow them.
//
// Fans who were here in the last days are active: a post is pushed into their inboxes,
// and they read one list. For the others nothing is done until they come back: then
// their inbox is pulled from SQL, and they are active again. Both ways only collect
// numbers of posts; what was deleted, and posts of hosts that are followed no more,
// is left out by who reads.
//
// A post is pushed by a job, which is added before the post is stored: a server that
// dies in between leaves a job that looks whether there is a post.
//
// Redis keys, beside those of cache, counter/unread and delayqueue:
//
//	liveshop:feed:inbox:<fan>    zset    numbers of posts by time, the newest 200; TTL 7 days
//	liveshop:feed:fresh:<fan>    string  of which hosts the inbox has all posts; TTL 1 day
//	liveshop:feed:active:<host>  zset    fans by when they were here last
package feed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/counter/unread"
	"github.com/spillway-go/spillway/delayqueue"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/idgen"
)

const (
	perPage   = 20
	perInbox  = 200
	mostHosts = 500                // that one follows
	activeFor = 7 * 24 * time.Hour // after the last visit posts are pushed no more
	freshFor  = 24 * time.Hour     // after a pull; well before activeFor is over there is another
	pushAfter = 5 * time.Second    // by the job of a server that died; else at once
	unstored  = time.Minute        // after which a job gives up a post that is not there
)

// A Post is what a host wrote.
type Post struct {
	ID      int64  `json:"id"`
	Host    int64  `json:"host"`
	Text    string `json:"text"`
	Created int64  `json:"created"` // ms
	Deleted bool   `json:"deleted,omitempty"`
}

// Feeds are those of all users.
type Feeds struct {
	env     *infra.Env
	name    func(ctx context.Context, uid int64) (string, error)
	ids     *idgen.Segment
	posts   *cache.Cache[int64, Post]
	follows *cache.Cache[int64, []int64] // hosts, by fan
	unread  *unread.FeedUnread
	jobs    *delayqueue.Queue
}

// New returns the feeds; name returns what a user is called.
func New(ctx context.Context, env *infra.Env, name func(ctx context.Context, uid int64) (string, error)) (*Feeds, error) {
	if err := errors.Join(env.Migrate(ctx, tables...), env.Index(ctx, "posts_host", "posts", "host, created_ms"),
		env.Index(ctx, "follows_host", "follows", "host")); err != nil {
		return nil, err
	}
	f := &Feeds{env: env, name: name}
	var errs [5]error
	f.ids, errs[0] = env.IDs("post")
	f.posts, errs[1] = cache.New(env.Redis, "post", cache.Source[int64, Post]{LoadMany: f.loadPosts}, cache.Options{Prefix: "liveshop", Logger: env.Log})
	f.follows, errs[2] = cache.New(env.Redis, "follows", cache.Source[int64, []int64]{Load: f.loadFollows}, cache.Options{Prefix: "liveshop", Logger: env.Log})
	f.unread, errs[3] = unread.NewFeedUnread(env.Redis, unread.Options{Prefix: "liveshop"})
	f.jobs, errs[4] = delayqueue.New(env.Redis, "feed", delayqueue.Options{Prefix: "liveshop", Logger: env.Log})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(err, f.Close(ctx))
	}
	env.CountCache("post", f.posts.Stats)
	env.CountCache("follows", f.follows.Stats)
	return f, nil
}

// Routes registers the calls of this package.
func (f *Feeds) Routes(m *api.Mux) {
	m.User("GET /feed", f.page)
	m.User("POST /posts", f.post)
	m.User("POST /posts/{id}/delete", f.delete)
	m.User("POST /users/{id}/follow", f.follow)
	m.User("POST /users/{id}/unfollow", f.unfollow)
}

// Run pushes posts.
func (f *Feeds) Run(ctx context.Context) error {
	return f.jobs.Run(ctx, delayqueue.JSON(f.push), delayqueue.RunOptions{Concurrency: 4})
}

// Close ends what New began. End Run first.
func (f *Feeds) Close(ctx context.Context) error {
	var errs []error
	if f.posts != nil { // nil where New failed
		errs = append(errs, f.posts.Close(ctx))
	}
	if f.follows != nil {
		errs = append(errs, f.follows.Close(ctx))
	}
	if f.jobs != nil {
		errs = append(errs, f.jobs.Close(ctx))
	}
	return errors.Join(errs...)
}

// post answers POST /posts {text,key}. With the same key it is the same post.
func (f *Feeds) post(r *api.Request) (any, error) {
	var in struct {
		Text string `json:"text"`
		Key  string `json:"key"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	in.Text = strings.TrimSpace(in.Text)
	if n := utf8.RuneCountInString(in.Text); n < 1 || n > 500 {
		return nil, api.Bad("text: want 1 to 500 characters")
	}
	if in.Key == "" || len(in.Key) > 40 {
		return nil, api.Bad("key: want 1 to 40 characters, the same when asked again")
	}
	p, err := f.write(r.Context(), r.UID, in.Text, in.Key)
	if err == nil && p.Text != in.Text {
		err = api.Conflict("key_used", "this key was another post")
	}
	return p, err
}

func (f *Feeds) write(ctx context.Context, host int64, text, key string) (p Post, err error) {
	id, err := f.ids.Next(ctx)
	if err != nil {
		return p, err
	}
	j := job{ID: id, Added: time.Now().UnixMilli()}
	if err := f.addJob(ctx, j); err != nil {
		return p, err
	}
	asked := fmt.Sprintf("%d:%s", host, key)
	_, err = f.env.DB.ExecContext(ctx, f.env.InsertNew("posts", "id", "asked", "host", "text", "created_ms", "deleted"),
		id, asked, host, text, j.Added, 0)
	if err != nil {
		return p, err
	}
	if p, err = scanPost(f.env.DB.QueryRowContext(ctx, "SELECT "+postColumns+" FROM posts WHERE asked = ?", asked)); err != nil {
		return p, err
	}
	if p.ID != id { // asked again; the job finds nothing
		return p, nil
	}
	// Now, instead of when the job is due. If that fails, it is due soon.
	if err := f.jobs.Reschedule(ctx, j.name(), time.Now()); err != nil {
		f.env.Log.Warn("post is pushed later", "post", id, "err", err)
	}
	return p, nil
}

// delete answers POST /posts/{id}/delete. Inboxes keep the number, and readers find
// that the post is deleted.
func (f *Feeds) delete(r *api.Request) (any, error) {
	id, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	res, err := f.env.DB.ExecContext(r.Context(), "UPDATE posts SET deleted = deleted + 1 WHERE id = ? AND host = ?", id, r.UID)
	if err != nil {
		return nil, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return nil, errors.Join(err, api.NotFound("post of yours"))
	}
	return nil, f.posts.Delete(r.Context(), id)
}

const postColumns = "id, host, text, created_ms, deleted"

func scanPost(row interface{ Scan(...any) error }) (p Post, err error) {
	var deleted int
	err = row.Scan(&p.ID, &p.Host, &p.Text, &p.Created, &deleted)
	p.Deleted = deleted != 0
	return p, err
}

func (f *Feeds) loadPosts(ctx context.Context, ids []int64) (map[int64]Post, error) {
	posts, err := f.query(ctx, "SELECT "+postColumns+" FROM posts WHERE id IN ("+marks(len(ids))+")", values(ids)...)
	found := make(map[int64]Post, len(posts))
	for _, p := range posts {
		found[p.ID] = p
	}
	return found, err
}

func (f *Feeds) query(ctx context.Context, query string, args ...any) (posts []Post, err error) {
	rows, err := f.env.DB.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		p, err := scanPost(rows)
		if err != nil {
			return nil, err
		}
		posts = append(posts, p)
	}
	return posts, rows.Err()
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

func values(ids []int64) []any {
	out := make([]any, len(ids))
	for i, id := range ids {
		out[i] = id
	}
	return out
}

// total returns how many posts a host has ever made, the deleted ones too.
func (f *Feeds) total(ctx context.Context, host int64) (n int64, err error) {
	err = f.env.DB.QueryRowContext(ctx, "SELECT COUNT(*) FROM posts WHERE host = ?", host).Scan(&n)
	return n, err
}

func text(uid int64) string { return strconv.FormatInt(uid, 10) }
