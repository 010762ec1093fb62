package feed

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/delayqueue"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestMain(m *testing.M) { shoptest.Main(m) }

// feeds returns the feeds of users 1 to 99.
func feeds(t *testing.T, env *infra.Env) *Feeds {
	f, err := New(t.Context(), env, func(_ context.Context, uid int64) (string, error) {
		if uid > 99 {
			return "", cache.ErrNotFound
		}
		return fmt.Sprint("user ", uid), nil
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, f.Close(ctx))
	})
	return f
}

type feedPage struct {
	Posts []Entry
	Next  int
}

func (p feedPage) texts() (out []string) {
	for _, e := range p.Posts {
		out = append(out, e.Name+": "+e.Text)
	}
	return out
}

func TestFeed(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		f := feeds(t, env)
		call := shoptest.Caller(t, env, f)
		post := func(uid int64, text string) (p Post) {
			call(uid, "POST /posts", fmt.Sprintf(`{"text":%q,"key":%q}`, text, text)).Into(t, &p)
			return p
		}
		read := func(uid int64) (p feedPage) {
			call(uid, "GET /feed", "").Into(t, &p)
			return p
		}
		pushed := func(p Post) {
			t.Helper()
			require.Eventually(t, func() bool {
				j, err := f.jobs.Get(t.Context(), job{ID: p.ID}.name())
				return err == nil && j.State == delayqueue.Finished
			}, time.Minute, time.Millisecond)
		}
		require.Equal(t, 400, call(1, "POST /posts", `{"text":" ","key":"k"}`).Status)
		require.Equal(t, 400, call(7, "POST /users/7/follow", "").Status)
		require.Equal(t, 404, call(7, "POST /users/100/follow", "").Status)
		require.Empty(t, read(7).Posts)

		first := post(1, "one")
		require.Equal(t, first.ID, post(1, "one").ID, "the second click is no second post")
		pushed(first)
		require.Equal(t, 200, call(7, "POST /users/1/follow", "").Status)
		require.Equal(t, []string{"user 1: one"}, read(7).texts(), "pulled: it was there before")
		news, err := f.Unread(t.Context(), 7)
		require.NoError(t, err)
		require.EqualValues(t, 0, news)

		second := post(1, "two")
		pushed(second)
		news, err = f.Unread(t.Context(), 7)
		require.NoError(t, err)
		require.EqualValues(t, 1, news)
		require.Equal(t, []string{"user 1: two", "user 1: one"}, read(7).texts())
		require.Zero(t, env.Redis.Exists(t.Context(), inboxKey(8)).Val(), "8 follows nobody")

		require.Equal(t, 200, call(7, "POST /users/2/follow", "").Status)
		pushed(post(1, "three"))
		post(2, "other")
		require.ElementsMatch(t, []string{"user 2: other", "user 1: three", "user 1: two", "user 1: one"}, read(7).texts())

		require.Equal(t, 404, call(2, fmt.Sprintf("POST /posts/%d/delete", second.ID), "").Status, "somebody else's")
		require.Equal(t, 200, call(1, fmt.Sprintf("POST /posts/%d/delete", second.ID), "").Status)
		require.Equal(t, 200, call(7, "POST /users/2/unfollow", "").Status)
		require.Equal(t, []string{"user 1: three", "user 1: one"}, read(7).texts())
	})
}

// Fans who were away for long get nothing pushed, and find everything when they come.
func TestAway(t *testing.T) {
	env := shoptest.Env(t)
	f := feeds(t, env)
	call := shoptest.Caller(t, env, f)
	require.Equal(t, 200, call(7, "POST /users/1/follow", "").Status)
	require.Equal(t, 200, call(7, "GET /feed", "").Status)
	long := float64(time.Now().Add(-activeFor - time.Hour).UnixMilli())
	require.NoError(t, env.Redis.ZIncrBy(t.Context(), activeKey(1), long-float64(time.Now().UnixMilli()), "7").Err())
	require.NoError(t, env.Redis.Del(t.Context(), freshKey(7), inboxKey(7)).Err()) // both have expired by then
	for i := range 45 {
		j := job{ID: int64(1000 + i), Added: time.Now().UnixMilli()}
		_, err := env.DB.ExecContext(t.Context(), env.InsertNew("posts", "id", "asked", "host", "text", "created_ms", "deleted"),
			j.ID, fmt.Sprint(i), 1, fmt.Sprint(i), 1000+i, 0)
		require.NoError(t, err)
		require.NoError(t, f.push(t.Context(), j, nil))
	}
	require.Zero(t, env.Redis.Exists(t.Context(), inboxKey(7), activeKey(1)).Val())
	var sizes []int
	var seen []string
	for n := 0; ; {
		var p feedPage
		call(7, fmt.Sprintf("GET /feed?page=%d", n), "").Into(t, &p)
		sizes, seen = append(sizes, len(p.Posts)), append(seen, p.texts()...)
		if n = p.Next; n == 0 {
			break
		}
	}
	require.Equal(t, []int{20, 20, 5}, sizes)
	require.Equal(t, "user 1: 44", seen[0])
	require.Equal(t, "user 1: 0", seen[44])
}

// A job without a post: its server died before it stored the post, or is about to.
func TestPostThatNeverWas(t *testing.T) {
	f := feeds(t, shoptest.Env(t))
	j := job{ID: 5, Added: time.Now().UnixMilli()}
	require.Error(t, f.push(t.Context(), j, nil))
	j.Added -= unstored.Milliseconds()
	require.NoError(t, f.push(t.Context(), j, nil))
}
