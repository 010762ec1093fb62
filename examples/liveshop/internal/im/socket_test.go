package im

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/internal/redistest"
)

// A socket that does not read is closed; the others notice nothing, and it resumes.
func TestSlowSocket(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		fast, slow := one.viewer(1, 10), one.viewer(1, 11)
		one.gifts(1, -2, -2)
		settle()
		slow.mu.Lock()
		slow.pause = time.Hour
		slow.mu.Unlock()
		one.gifts(1, -1, -1) // the last one before the pause
		began := time.Now()
		publishMany(one, 1, backlog+200)
		settle()
		require.Less(t, time.Since(began), time.Second, "the others waited for the slow one")
		require.Len(t, fast.of("gift"), backlog+202)
		require.Zero(t, fast.Report().Lost)
		c := one.Counts()
		require.EqualValues(t, 1, c.Evicted, "%+v", c)
		require.EqualValues(t, 1, c.Sockets)
		require.NotZero(t, c.Left)
		balanced(t, one)

		time.Sleep(time.Hour)
		<-slow.done
		slow.pause = 0
		slow.connect(one)
		settle()
		require.Equal(t, fast.of("gift"), slow.of("gift"))
		require.Zero(t, slow.Report().Lost)
		require.Equal(t, 1, slow.Report().Resumed)
		balanced(t, one)
	})
	t.Run("naive", func(t *testing.T) { // a queue that drops what does not fit
		bubble(t, func(t *testing.T, b *redistest.Env) {
			one := start(t, b.Client(), "one", func(h *Hub) {
				h.policy = func(q []item, waiting, limit int, it item) ([]item, int, outcome) {
					if waiting >= limit {
						return q, 0, dropped
					}
					return append(q, it), 0, taken
				}
			})
			slow := one.viewer(1, 11, func(v *viewer) { v.pause = time.Second; v.deaf = true })
			publishMany(one, 1, backlog+200)
			slow.mu.Lock()
			slow.pause = 0
			slow.mu.Unlock()
			time.Sleep(2 * time.Second)
			one.gifts(1, 0, 0)
			settle()
			require.Equal(t, 1, slow.Report().Lost, "the check does not see what the queue dropped")
		})
	})
}

func publishMany(n *node, room int64, count int) {
	for i := 0; i < count; i += perCall {
		var all sync.WaitGroup
		for j := i; j < min(i+perCall, count); j++ {
			all.Go(func() { n.gifts(room, j, j) })
		}
		all.Wait()
	}
}

// Too many barrages are sampled: for all but who wrote them, and never gifts.
func TestSampling(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		reader, writer := one.viewer(1, 10), one.viewer(1, 11)
		for i := range 5 * perRoom {
			require.NoError(t, one.publish(t.Context(), 1, barrage, 11, "barrage", said{11, "w", fmt.Sprint(i)}))
			if i%10 == 0 {
				one.gifts(1, i, i)
			}
		}
		settle()
		require.Len(t, writer.of("barrage"), 5*perRoom)
		require.Len(t, reader.of("barrage"), perRoom)
		require.Len(t, reader.of("gift"), perRoom/2)
		c := one.Counts()
		require.EqualValues(t, 4*perRoom, c.Sampled)
		time.Sleep(heartbeat)
		settle()
		require.Equal(t, []string{fmt.Sprintf(`{"n":%d}`, 4*perRoom)}, reader.of("sampled"))
		require.Empty(t, writer.of("sampled"))
		last, err := one.Last(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, last, stored)
		require.Contains(t, string(last[stored-1]), fmt.Sprintf(`"text":"%d"`, 5*perRoom-1))
		balanced(t, one)
	})
}

// A hub that forgets to count what it drops is seen by the check.
func TestCheckSeesUncounted(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one", func(h *Hub) {
			h.policy = func(q []item, waiting, _ int, it item) ([]item, int, outcome) {
				if waiting > 0 {
					return q, 0, taken // it is not
				}
				return append(q, it), 0, taken
			}
		})
		one.viewer(1, 10, func(v *viewer) { v.pause = time.Second })
		one.gifts(1, 1, 5)
		settle()
		one.sayCounts(t.Context())
		wrong, _, err := Check(t.Context(), &infra.Env{Redis: one.rdb})
		require.NoError(t, err)
		require.Len(t, wrong, 1)
	})
}

// A reliable frame that is not acknowledged comes once more, after two seconds.
func TestAcknowledge(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		good, deaf := one.viewer(1, 10), one.viewer(1, 11, func(v *viewer) { v.deaf = true })
		one.gifts(1, 1, 1)
		require.NoError(t, one.Publish(t.Context(), 1, "like", 5, Sampled))
		require.NoError(t, one.Tell(t.Context(), 11, "balance", map[string]int{"fen": 7}))
		settle()
		require.Len(t, deaf.of("balance"), 1)
		time.Sleep(retry - time.Millisecond)
		settle()
		require.Zero(t, deaf.Report().Again)
		time.Sleep(time.Millisecond)
		settle()
		require.Equal(t, 2, deaf.Report().Again, "the gift and the balance")
		time.Sleep(time.Minute)
		settle()
		require.Equal(t, 2, deaf.Report().Again)
		require.Zero(t, good.Report().Again)
		c := one.Counts()
		require.Equal(t, []int64{2, 2}, []int64{c.Retried, c.Unacked})

		publishMany(one, 1, 100) // who is silent is not buried
		time.Sleep(retry + time.Millisecond)
		settle()
		require.Equal(t, 2+reminders, deaf.Report().Again)
		last, err := one.logged(t.Context(), 1, 100)
		require.NoError(t, err)
		deaf.say(`{"t":"ack","id":%q}`, last[0].id) // which covers the earlier ones
		time.Sleep(time.Minute)
		settle()
		require.Equal(t, 2+reminders, deaf.Report().Again)

		publishMany(one, 1, 2*backlog) // nor is the server, nor thrown out who reads
		settle()
		require.EqualValues(t, 2, one.Counts().Sockets)
		one.mu.Lock()
		for s := range one.sockets {
			require.LessOrEqual(t, len(s.owed), backlog)
		}
		one.mu.Unlock()
	})
}
