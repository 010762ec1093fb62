package bus

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// await fails the test if nothing comes for a minute.
func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
		panic("not reached")
	}
}

func listen(b *Bus, channel string) (*Sub, <-chan Event) {
	events := make(chan Event, 100)
	return b.Subscribe(channel, func(e Event) { events <- e }), events
}

func TestDelivers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := New(rdb)
		defer b.Close()
		prefix := redistest.Prefix(t)
		one, first := listen(b, prefix+"{a}")
		two, second := listen(b, prefix+"{b}")
		await(t, one.Ready())
		await(t, two.Ready())
		require.NoError(t, rdb.Publish(t.Context(), prefix+"{a}", "x").Err())
		require.NoError(t, rdb.Publish(t.Context(), prefix+"{b}", "y").Err())
		require.Equal(t, Event{Payload: "x"}, await(t, first))
		require.Equal(t, Event{Payload: "y"}, await(t, second))
	})
}

func TestTellsOfAGap(t *testing.T) {
	srv := redistest.Server(t)
	rdb := srv.Client()
	b := New(rdb)
	defer b.Close()
	sub, events := listen(b, "c")
	await(t, sub.Ready())
	killed, err := rdb.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Result()
	require.NoError(t, err)
	require.EqualValues(t, 1, killed)
	require.Equal(t, Event{Gap: true}, await(t, events))
	require.NoError(t, rdb.Publish(t.Context(), "c", "after").Err())
	require.Equal(t, Event{Payload: "after"}, await(t, events))

	require.NoError(t, srv.Restart(t.Context()))
	require.Equal(t, Event{Gap: true}, await(t, events))
}

func TestReadyWaitsForTheServer(t *testing.T) {
	srv := redistest.Server(t)
	rdb := srv.Client()
	srv.Kill()
	b := New(rdb)
	defer b.Close()
	sub, _ := listen(b, "c")
	select {
	case <-sub.Ready():
		t.Fatal("ready without a server")
	default:
	}
	require.NoError(t, srv.Restart(t.Context()))
	await(t, sub.Ready())
}

func TestDropsWhatNobodyHears(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		rdb := env.Client()
		b := New(rdb)
		defer b.Close()
		sub, _ := listen(b, "c")
		await(t, sub.Ready())
		sub.Close()
		require.Len(t, env.Mini.PubSubChannels(""), 1)
		again, events := listen(b, "c")
		await(t, again.Ready())
		time.Sleep(2 * keepFor)
		require.Len(t, env.Mini.PubSubChannels(""), 1, "it has a listener")
		again.Close()
		time.Sleep(2 * keepFor)
		require.Empty(t, env.Mini.PubSubChannels(""))

		third, events3 := listen(b, "c")
		await(t, third.Ready())
		require.NoError(t, rdb.Publish(t.Context(), "c", "x").Err())
		require.Equal(t, Event{Payload: "x"}, await(t, events3))
		require.Empty(t, events, "it was closed")
	})
}

func TestCloseEndsEverything(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		b := New(env.Client())
		sub, _ := listen(b, "c")
		await(t, sub.Ready())
		b.Close()
		b.Close()
		late, _ := listen(b, "d") // the bubble would notice a goroutine
		select {
		case <-late.Ready():
			t.Fatal("ready after Close")
		default:
		}
	})
}
