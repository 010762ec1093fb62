package delayqueue

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A lossy queue can lose the reply to one call of a script.
type lossy struct {
	*Queue
	t      *testing.T
	server *redistest.Proc
	faults *redistest.Faults
	clean  *Queue
	added  int64
}

func newLossy(t *testing.T, opts Options) *lossy {
	t.Helper()
	l := &lossy{t: t, server: redistest.Shared(t), faults: new(redistest.Faults)}
	opts.Prefix = redistest.Prefix(t)
	l.clean = open(t, l.server.Client(), opts)
	l.Queue = open(t, l.server.Client(l.faults.Options), opts)
	return l
}

// twice calls f, whose first call of the script made of sources gets no reply, and
// shows that the server ran it twice.
func (l *lossy) twice(f func(), sources ...string) {
	l.t.Helper()
	source := strings.Join(sources, "\n")
	require.NoError(l.t, l.server.Client().ScriptLoad(l.t.Context(), source).Err())
	before, err := l.server.Executions(l.t.Context(), "evalsha")
	require.NoError(l.t, err)
	fired := l.faults.Fired(redistest.CutAfter)
	l.faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: hashOf(source)})
	f()
	after, err := l.server.Executions(l.t.Context(), "evalsha")
	require.NoError(l.t, err)
	require.Equal(l.t, fired+1, l.faults.Fired(redistest.CutAfter), "no reply was lost")
	require.Equal(l.t, before+2, after, "the script did not run twice")
}

func (l *lossy) state(id string) State { return state(l.t, l.clean, id) }

func (l *lossy) claimer() *claimer {
	return newClaimer(l.Queue, &l.shards[0], newToken(), 30*time.Second)
}

// one claims exactly one job.
func (l *lossy) one(c *claimer) *Delivery {
	l.t.Helper()
	got, err := c.claim(l.t.Context(), 1)
	require.NoError(l.t, err)
	require.Len(l.t, got.jobs, 1)
	return got.jobs[0]
}

func (l *lossy) settleTwice(d *Delivery, verb string, want int64) {
	l.t.Helper()
	l.twice(func() {
		code, err := l.settle(l.t.Context(), d.shard, &settleOp{id: d.ID, token: d.token, verb: verb, text: "no"})
		require.NoError(l.t, err)
		require.Equal(l.t, want, code)
	}, readLua, settleLua)
}

// add adds a job, due at once and after those before it if it says nothing else.
func (l *lossy) add(j Job) string {
	l.t.Helper()
	if j.At.IsZero() && j.Delay == 0 {
		l.added++
		j.At = time.Unix(l.added, 0)
	}
	id, err := l.Add(l.t.Context(), j)
	require.NoError(l.t, err)
	return id
}

func (l *lossy) waiting() int64 {
	l.t.Helper()
	st, err := l.clean.Inspect(l.t.Context())
	require.NoError(l.t, err)
	return st.Waiting
}

func TestLostReplyOfAdd(t *testing.T) {
	l := newLossy(t, Options{})
	l.twice(func() { l.add(Job{ID: "a", Delay: time.Hour}) }, readLua, addLua)
	l.twice(func() {
		_, err := l.Add(t.Context(), Job{ID: "a", Delay: time.Hour})
		require.ErrorIs(t, err, ErrDuplicate)
	}, readLua, addLua)
	require.Equal(t, int64(1), l.waiting())

	l.twice(func() {
		res, err := l.AddMany(t.Context(), []Job{{ID: "m1", Delay: time.Hour}, {ID: "a"}, {ID: "m1"}, {Delay: time.Hour}})
		require.NoError(t, err)
		require.NoError(t, res[0].Err)
		require.ErrorIs(t, res[1].Err, ErrDuplicate)
		require.ErrorIs(t, res[2].Err, ErrDuplicate)
		require.NoError(t, res[3].Err)
	}, readLua, addLua)
	require.Equal(t, int64(3), l.waiting())

	// The unique key: who asks again is told that it was this very job.
	unique := func(p Policy) Job {
		return Job{Delay: time.Hour, Unique: &Unique{Key: "u", Policy: p}, Body: []byte{byte('0' + p)}}
	}
	var first string
	l.twice(func() { first = l.add(unique(Reject)) }, readLua, addLua)
	l.twice(func() {
		_, err := l.Add(t.Context(), unique(Reject))
		require.ErrorIs(t, err, ErrNotUnique)
	}, readLua, addLua)
	l.twice(func() { require.Equal(t, first, l.add(unique(Replace))) }, readLua, addLua)
	l.twice(func() { require.Equal(t, first, l.add(unique(Extend))) }, readLua, addLua)
	require.Equal(t, int64(4), l.waiting())
	i, err := l.clean.Get(t.Context(), first)
	require.NoError(t, err)
	require.Equal(t, "1", string(i.Body), "replaced, and kept when extended")
}

// An attempt of an Add that arrives when its job has run long since must not bring it
// back.
func TestLateAddOfAFinishedJob(t *testing.T) {
	l := newLossy(t, Options{})
	j := Job{ID: "a", At: time.Unix(1, 0)}
	op, s, err := l.newOp(&j)
	require.NoError(t, err)
	for want := range 3 {
		outs, err := l.Queue.add(t.Context(), s, []*addOp{op})
		require.NoError(t, err)
		require.Equal(t, addOut{}, outs[0], "attempt %d", want)
		if want == 0 {
			d := l.one(l.claimer())
			code, err := l.settle(t.Context(), s, &settleOp{id: d.ID, token: d.token, verb: "A"})
			require.NoError(t, err)
			require.EqualValues(t, settledDone, code)
		}
	}
	require.Zero(t, l.waiting())
}

func TestLostReplyOfClaim(t *testing.T) {
	l := newLossy(t, Options{})
	ids := []string{l.add(Job{Body: []byte("1")}), l.add(Job{Body: []byte("2"), Unique: &Unique{Key: "k"}}), l.add(Job{})}
	c := l.claimer()
	var got claim
	l.twice(func() {
		var err error
		got, err = c.claim(t.Context(), 2)
		require.NoError(t, err)
	}, readLua, claimLua)
	require.Len(t, got.jobs, 2)
	require.ElementsMatch(t, ids[:2], []string{got.jobs[0].ID, got.jobs[1].ID})
	require.NotEqual(t, got.jobs[0].Body, got.jobs[1].Body)
	for _, d := range got.jobs {
		require.Zero(t, d.Crashes)
		l.settleTwice(d, "A", settledDone)
	}
	require.Equal(t, int64(1), l.waiting())

	// Nothing was due: the second attempt says so as well.
	l.one(c)
	l.twice(func() {
		got, err := c.claim(t.Context(), 2)
		require.NoError(t, err)
		require.Empty(t, got.jobs)
	}, readLua, claimLua)
}

// A claim that fails for good is made again under its number, and finds its jobs.
func TestBubbleClaimThatFailed(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		q := open(t, b.Client(faults.Options), Options{})
		c := newClaimer(q, &q.shards[0], newToken(), 30*time.Second)
		for n := range 2 { // the first one loads the script
			id, err := q.Add(t.Context(), Job{})
			require.NoError(t, err)
			if n == 1 {
				faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
				faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
				_, err := c.claim(t.Context(), 2)
				require.ErrorIs(t, err, ErrUnknown)
				require.Equal(t, 1, faults.Fired(redistest.CutAfter))
				faults.Clear()
				require.Equal(t, Running, state(t, q, id))
			}
			time.Sleep(time.Millisecond)
			got, err := c.claim(t.Context(), 2)
			require.NoError(t, err)
			require.Len(t, got.jobs, 1)
			require.Equal(t, id, got.jobs[0].ID)
		}
	})
}

// An attempt of a claim that arrives after its consumer has moved on takes nothing.
func TestLateClaim(t *testing.T) {
	l := newLossy(t, Options{})
	for range 3 {
		l.add(Job{})
	}
	c := l.claimer()
	l.one(c)
	l.one(c)
	for _, again := range []int{0, 1} {
		c.number, c.again = 1, again
		got, err := c.claim(t.Context(), 5)
		require.NoError(t, err)
		require.Empty(t, got.jobs)
	}
	require.Equal(t, int64(1), l.waiting())
}

func TestLostReplyOfSettle(t *testing.T) {
	l := newLossy(t, Options{MaxAttempts: 2})
	c := l.claimer()
	for _, verb := range []string{"A", "S", "D"} {
		l.add(Job{ID: verb})
		d := l.one(c)
		l.settleTwice(d, verb, settledDone)
		require.Equal(t, map[string]State{"A": Finished, "S": Waiting, "D": Dead}[verb], l.state(verb))
		l.settleTwice(d, verb, settledDone) // long after: still the first answer
		if verb == "S" {
			require.NoError(t, l.clean.Cancel(t.Context(), verb))
		}
	}
	l.add(Job{ID: "R"})
	d := l.one(c)
	l.settleTwice(d, "R", settledDone)
	i, err := l.clean.Get(t.Context(), "R")
	require.NoError(t, err)
	require.Equal(t, 1, i.Attempts, "counted once")
	require.Equal(t, "no", i.Error)
	second := l.one(c)
	require.Equal(t, 2, second.Attempt)
	l.settleTwice(d, "A", settledDone) // of the first: it was told so, and nothing changes
	require.Equal(t, Running, l.state("R"))
	l.settleTwice(second, "R", settledDead)
	require.Equal(t, Dead, l.state("R"))

	l.twice(func() {
		n, err := l.Redrive(t.Context(), "R", "D", "A")
		require.NoError(t, err)
		require.Equal(t, 2, n)
	}, readLua, redriveLua)
}

func TestLostReplyOfExtend(t *testing.T) {
	l := newLossy(t, Options{})
	l.add(Job{ID: "a"})
	d := l.one(l.claimer())
	before, err := l.clean.Get(t.Context(), "a")
	require.NoError(t, err)
	l.twice(func() {
		held, err := l.extend(t.Context(), d.shard, []*Delivery{d, {ID: "a", token: "other"}, {ID: "b", token: d.token}}, time.Hour)
		require.NoError(t, err)
		require.Equal(t, []bool{true, false, false}, held)
	}, readLua, extendLua)
	after, err := l.clean.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Greater(t, after.Lease.Sub(before.Lease), 50*time.Minute)
}

func TestLostReplyOfCancelAndReschedule(t *testing.T) {
	l := newLossy(t, Options{})
	l.add(Job{ID: "a", Delay: time.Hour})
	at := time.Now().Add(time.Minute).Truncate(time.Millisecond)
	l.twice(func() { require.NoError(t, l.Reschedule(t.Context(), "a", at)) }, readLua, changeLua)
	i, err := l.clean.Get(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, at.Equal(i.Due))
	l.twice(func() { require.NoError(t, l.Cancel(t.Context(), "a")) }, readLua, changeLua)
	require.Equal(t, Cancelled, l.state("a"))
	l.twice(func() { require.ErrorIs(t, l.Cancel(t.Context(), "b"), ErrNotFound) }, readLua, changeLua)

	l.add(Job{ID: "r"})
	d := l.one(l.claimer())
	l.twice(func() { require.ErrorIs(t, l.Cancel(t.Context(), "r"), ErrActive) }, readLua, changeLua)
	l.settleTwice(d, "A", settledDone)
	l.twice(func() { require.ErrorIs(t, l.Cancel(t.Context(), "r"), ErrFinished) }, readLua, changeLua)
	// It may have been this call that made the job run.
	l.twice(func() {
		err := l.Reschedule(t.Context(), "r", at)
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, ErrActive)
	}, readLua, changeLua)
}

func TestLostReplyOfPause(t *testing.T) {
	l := newLossy(t, Options{})
	l.twice(func() { require.NoError(t, l.Pause(t.Context())) }, readLua, pauseLua)
	l.add(Job{ID: "a"})
	got, err := l.claimer().claim(t.Context(), 1)
	require.NoError(t, err)
	require.True(t, got.paused)
	require.Empty(t, got.jobs)
	l.twice(func() { require.NoError(t, l.Resume(t.Context())) }, readLua, pauseLua)
	l.one(l.claimer())
}

// Redis refuses what needs memory, and lets pass what gives it back.
func TestOutOfMemory(t *testing.T) {
	p := redistest.Server(t)
	rdb := p.Client()
	q := open(t, rdb, Options{})
	ctx := t.Context()
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		j := Job{ID: id}
		if j.At = time.Unix(int64(id[0]), 0); id == "e" {
			j.At = time.Now().Add(time.Hour)
		}
		_, err := q.Add(ctx, j)
		require.NoError(t, err)
	}
	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	_, err := q.Add(ctx, Job{ID: "f"})
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, redis.IsOOMError(err))
	c := newClaimer(q, &q.shards[0], newToken(), time.Minute)
	got, err := c.claim(ctx, 10)
	require.NoError(t, err)
	require.Len(t, got.jobs, 4)
	held, err := q.extend(ctx, &q.shards[0], got.jobs, time.Hour)
	require.NoError(t, err)
	require.Equal(t, []bool{true, true, true, true}, held)
	for i, verb := range []string{"A", "R", "S", "D"} {
		code, err := q.settle(ctx, &q.shards[0], &settleOp{id: got.jobs[i].ID, token: got.jobs[i].token, verb: verb})
		require.NoError(t, err)
		require.Zero(t, code)
	}
	require.NoError(t, q.Cancel(ctx, "e"))
	require.Equal(t, []State{Finished, Waiting, Waiting, Dead, Cancelled, 0},
		[]State{state(t, q, "a"), state(t, q, "b"), state(t, q, "c"), state(t, q, "d"), state(t, q, "e"), state(t, q, "f")})
	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "0").Err())
}

// hashOf is what EVALSHA calls a script.
func hashOf(source string) string {
	sum := sha1.Sum([]byte(source))
	return hex.EncodeToString(sum[:])
}
