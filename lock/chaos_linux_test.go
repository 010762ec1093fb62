package lock

import (
	"context"
	"errors"
	stdflag "flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
	_ = stdflag.Set("test.parallel", "10") // the parallel ones wait nearly all the time; the command line has the last word
	chaos.Main(m, map[string]chaos.Job{"hold": hold})
}

// monotonic is one clock for all processes of the machine, in nanoseconds.
func monotonic() int64 {
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic(errno)
	}
	return ts.Nano()
}

// A stint is the config of a process that takes the lock again and again.
type stint struct {
	Addr, Prefix string
	Master       string   // the lock's server is looked up at these sentinels,
	Sentinels    []string // and Addr is the resource's alone; "" and nil: one server is both
	Naive        bool     // SET NX, then GET and DEL, as the negative control
	Fair         bool
	TTL, Hold    time.Duration
	Writes       int           // it holds for so many writes, not for Hold: one that is stopped goes on
	Deaf         time.Duration // it goes on writing for so long after ctx has ended
	Lost         float64       // chance that a reply is lost
	Seed         uint64
	From         string // a key of the resource: it begins when that is there; "" for at once
}

// client returns a client of the lock's server.
func (c stint) client(f *redistest.Faults) *redis.Client {
	if c.Sentinels != nil {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: c.Master, SentinelAddrs: c.Sentinels, ReadTimeout: c.TTL / 4, DialTimeout: c.TTL / 4, DialerRetries: 1,
		})
	}
	o := &redis.Options{Addr: c.Addr, ReadTimeout: c.TTL / 2, DialerRetries: 1}
	f.Options(o)
	return redis.NewClient(o)
}

// A sighting is what such a process reports: that it holds the lock, that it did
// up to then, that its lease was lost.
type sighting struct {
	PID   int
	What  string // "begin", "end" or "lost"
	Hold  int    // its number in this process
	At    int64
	Fence int64
	Late  time.Duration // "lost": how long after the deadline ctx ended; negative: before
	Still time.Duration // "lost": of the time since ctx ought to have ended, how long the process did not run
}

// A pulse knows when this process did not run: on a busy machine that can be for
// longer than a lease.
type pulse struct {
	mu    sync.Mutex
	last  int64
	still [][2]int64 // from and to
}

// skipped is how far two beats are apart if the process did not run in between.
const skipped = int64(10 * time.Millisecond)

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := monotonic()
	if now-p.last > skipped {
		p.still = append(p.still, [2]int64{p.last, now})
	}
	p.last = now
}

func (p *pulse) run() {
	for ; ; <-time.After(time.Millisecond) {
		p.beat()
	}
}

// stillSince returns for how long the process did not run since then.
func (p *pulse) stillSince(then int64) (sum time.Duration) {
	p.beat()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.still {
		sum += time.Duration(max(0, s[1]-max(s[0], then)))
	}
	return sum
}

// hold takes the lock, writes to the resource while it believes it may, and gives
// the lock back, until it is stopped.
func hold(ctx context.Context, w *chaos.Worker) error {
	var c stint
	if err := w.Config(&c); err != nil {
		return err
	}
	faults := &redistest.Faults{Seed: c.Seed}
	if c.Lost > 0 {
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: c.Lost, Times: -1})
	}
	rdb := c.client(faults)
	defer rdb.Close()
	clean := redis.NewClient(&redis.Options{Addr: c.Addr})
	defer clean.Close()
	l, err := New(rdb, Options{Prefix: c.Prefix, TTL: c.TTL, Fair: c.Fair})
	if err != nil {
		return err
	}
	for ctx.Err() == nil && c.From != "" && clean.Exists(ctx, c.From).Val() == 0 {
		<-time.After(5 * time.Millisecond)
	}
	heart := &pulse{last: monotonic()}
	go heart.run()
	for n := 0; ctx.Err() == nil; n++ {
		var leaseCtx context.Context
		var fence int64
		var unlock func() error
		var deadline func() time.Time
		if c.Naive {
			leaseCtx, unlock, err = naiveLock(ctx, clean, c, n)
			deadline = func() time.Time { return time.Time{} }
		} else {
			var s *Lease
			if leaseCtx, s, err = l.Lock(ctx, "a"); err == nil {
				fence, deadline = s.Fence(), s.Deadline
				unlock = func() error { return s.Unlock(ctx) }
			}
		}
		if err != nil {
			continue
		}
		begin := sighting{PID: os.Getpid(), What: "begin", Hold: n, At: monotonic(), Fence: fence}
		if err := w.Report(begin); err != nil {
			return err
		}
		told := make(chan error, 1)
		stop := context.AfterFunc(leaseCtx, func() {
			if !errors.Is(context.Cause(leaseCtx), ErrLost) {
				told <- nil
				return
			}
			now, late := monotonic(), time.Since(deadline())
			still := heart.stillSince(now - int64(late+notice(c.TTL)))
			told <- w.Report(sighting{PID: os.Getpid(), What: "lost", Hold: n, At: now, Late: late, Still: still})
		})
		believed := writeWhile(leaseCtx, clean, c, begin)
		if !stop() {
			if err := <-told; err != nil {
				return err
			}
		}
		if err := w.Report(sighting{PID: os.Getpid(), What: "end", Hold: n, At: believed}); err != nil {
			return err
		}
		_ = unlock() // what it says is other tests' matter
		if c.Naive { // or the other one starves
			<-time.After(c.Hold / 5)
		}
	}
	return l.Close(context.WithoutCancel(ctx))
}

// write appends to the resource's log, if it admits the fence, and in any case to
// what it would be without one.
var write = redis.NewScript(FenceLua() + `
	redis.call('RPUSH', KEYS[3], ARGV[2])
	if not admit(KEYS[2], ARGV[1]) then return 0 end
	redis.call('RPUSH', KEYS[1], ARGV[2])
	return 1`)

// writeWhile writes to the resource for c.Hold or c.Writes, as long as ctx lives and
// c.Deaf longer. It returns when it last believed that it may.
func writeWhile(ctx context.Context, rdb *redis.Client, c stint, s sighting) int64 {
	believed, deaf := s.At, false
	n := 0
	for until := time.Now().Add(c.Hold); ; <-time.After(2 * time.Millisecond) {
		now := monotonic() // ctx lives then if it does afterwards
		if ctx.Err() == nil {
			believed = now
		} else if !deaf {
			deaf, until = true, time.Now().Add(c.Deaf)
		}
		over := !time.Now().Before(until)
		if c.Writes > 0 {
			over = n >= c.Writes
		}
		if over {
			return believed
		}
		n++
		_ = write.Run(context.WithoutCancel(ctx), rdb, []string{c.Prefix + ":log", c.Prefix + ":highest", c.Prefix + ":unfenced"},
			s.Fence, fmt.Sprintf("%d/%d", s.PID, s.Hold)).Err()
	}
}

// naiveLock is the lock of many a blog post, with a context for its TTL.
func naiveLock(ctx context.Context, rdb *redis.Client, c stint, n int) (context.Context, func() error, error) {
	token := fmt.Sprintf("%d/%d", os.Getpid(), n)
	for !rdb.SetNX(ctx, c.Prefix+":naive", token, c.TTL).Val() {
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return ctx, func() error {
		if rdb.Get(ctx, c.Prefix+":naive").Val() == token {
			return rdb.Del(ctx, c.Prefix+":naive").Err()
		}
		return nil
	}, nil
}

// A history is what the processes reported, and what was done to them.
type history struct {
	mu     sync.Mutex
	seen   []sighting
	paused map[int]bool
}

func (h *history) report(s sighting) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, s)
}

// pids returns the processes that have held the lock at least once.
func (h *history) pids() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []int
	for _, s := range h.seen {
		if !slices.Contains(out, s.PID) {
			out = append(out, s.PID)
		}
	}
	return out
}

// holder waits for a process to take the lock, and returns it.
func (h *history) holder(t *testing.T) (pid int) {
	h.mu.Lock()
	n := len(h.seen)
	h.mu.Unlock()
	return h.sees(t, n, "begin").PID
}

// sees waits for a sighting like that after the first n, and returns the last one.
func (h *history) sees(t *testing.T, n int, what string) (found sighting) {
	t.Helper()
	require.Eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, s := range h.seen[n:] {
			if s.What == what {
				found = s
			}
		}
		return found.PID != 0
	}, time.Minute, time.Millisecond, what)
	return found
}

// An interval is one hold.
type interval struct {
	pid, hold  int
	begin, end int64
	fence      int64
}

func (h *history) intervals() []interval {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []interval
	open := map[int]int{} // pid → place in out
	for _, s := range h.seen {
		switch s.What {
		case "begin":
			open[s.PID] = len(out)
			out = append(out, interval{s.PID, s.Hold, s.At, s.At, s.Fence})
		case "end":
			out[open[s.PID]].end = s.At
		}
	}
	slices.SortFunc(out, func(a, b interval) int { return int(a.begin - b.begin) })
	return out
}

// overlaps names the holds that overlap, those of processes that were paused left out.
func (h *history) overlaps() []string {
	var out []string
	var last interval
	for _, i := range h.intervals() {
		if h.paused[i.pid] {
			continue
		}
		if i.begin < last.end {
			out = append(out, fmt.Sprintf("%d/%d and %d/%d by %v", last.pid, last.hold, i.pid, i.hold, time.Duration(last.end-i.begin)))
		}
		if i.end > last.end {
			last = i
		}
	}
	return out
}

// interleaved tells how often a holder wrote again after another had begun to.
func interleaved(log []string) int {
	n, done := 0, map[string]bool{}
	for i, who := range log {
		if i > 0 && log[i-1] != who {
			done[log[i-1]] = true
			if done[who] {
				n++
			}
		}
	}
	return n
}

// chaosFor is how long processes are tormented.
func chaosFor() time.Duration {
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		return 10 * time.Minute
	}
	return 6 * time.Second
}

// A holder that is stopped for longer than its lease learns of the loss too late: what
// the fence is for, and the control of the oracle that ctx ends before the validity.
func TestAStoppedHolderIsLate(t *testing.T) {
	const ttl = 300 * time.Millisecond
	srv := redistest.Server(t)
	h := &history{}
	c := stint{Addr: srv.Addr(), Prefix: "p", TTL: ttl, Hold: time.Minute}
	worker := chaos.Start(t, "hold", c, h.report)
	pid := h.sees(t, 0, "begin").PID
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	wait(t, 2*ttl)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	require.Positive(t, h.sees(t, 0, "lost").Late)
	require.NoError(t, worker.Stop())
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	for _, fair := range []bool{false, true} {
		t.Run(fmt.Sprintf("fair=%v", fair), func(t *testing.T) {
			t.Parallel() // both wait most of the time
			const ttl = time.Second
			srv := redistest.Server(t)
			rdb := srv.Client()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			h := &history{paused: map[int]bool{}}
			c := stint{Addr: srv.Addr(), Prefix: "p", Fair: fair, TTL: ttl, Hold: 10 * time.Millisecond, Lost: 0.01}
			start := func() *chaos.Process {
				c.Seed = rng.Uint64()
				return chaos.Start(t, "hold", c, h.report)
			}
			var workers []*chaos.Process
			for range 4 {
				workers = append(workers, start())
			}
			require.Eventually(t, func() bool { return len(h.pids()) >= 4 }, time.Minute, 10*time.Millisecond)
			for end := time.Now().Add(chaosFor()); time.Now().Before(end); {
				switch what := rng.IntN(5); what {
				case 0:
					k := rng.IntN(len(workers))
					workers[k].Kill()
					workers[k] = start()
				case 1:
					pids := h.pids()
					pid := pids[len(pids)-1-rng.IntN(min(4, len(pids)))]
					if syscall.Kill(pid, syscall.SIGSTOP) == nil {
						h.paused[pid] = true
						wait(t, ttl*3/2)
						_ = syscall.Kill(pid, syscall.SIGCONT)
					}
				case 2:
					require.NoError(t, rdb.Do(t.Context(), "CLIENT", "PAUSE", (ttl/2).Milliseconds()).Err())
				case 3:
					require.NoError(t, rdb.ScriptFlush(t.Context()).Err())
				case 4:
					require.NoError(t, rdb.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err())
				}
				wait(t, 200*time.Millisecond)
			}
			for _, w := range workers {
				require.NoError(t, w.Stop())
			}

			// A process that was stopped between being granted a lease and saying so
			// says so late.
			all := slices.DeleteFunc(h.intervals(), func(i interval) bool { return h.paused[i.pid] })
			require.Greater(t, len(all), 10)
			require.Empty(t, h.overlaps())
			for i := 1; i < len(all); i++ {
				require.Greater(t, all[i].fence, all[i-1].fence, "fences grow in the order of the holds")
				gap := time.Duration(all[i].begin - all[i-1].end)
				require.Less(t, gap, ttl+time.Second+2*(ttl*3/2+ttl/2), "taken within TTL + 1 s; the rest is how long pauses may hold up everybody")
			}
			for _, s := range h.seen {
				if s.What == "lost" && !h.paused[s.PID] {
					require.Less(t, s.Late, s.Still, "ctx ends before the validity, if the process runs")
				}
			}
			log, err := rdb.LRange(t.Context(), "p:log", 0, -1).Result()
			require.NoError(t, err)
			require.Zero(t, interleaved(log), "the fenced resource took no older holder's write")
			t.Logf("%d holds, %d writes, %d processes, %d paused", len(all), len(log), len(h.pids()), len(h.paused))
		})
	}
}

// The negative control: the oracles catch a naive lock when one process is stopped
// for longer than the TTL.
func TestProcessesCatchANaiveLock(t *testing.T) {
	const ttl = 100 * time.Millisecond
	srv := redistest.Server(t)
	rdb := srv.Client()
	h := &history{paused: map[int]bool{}}
	c := stint{Addr: srv.Addr(), Prefix: "p", Naive: true, TTL: ttl, Hold: 50 * time.Millisecond, Writes: 20}
	workers := []*chaos.Process{chaos.Start(t, "hold", c, h.report), chaos.Start(t, "hold", c, h.report)}
	require.Eventually(t, func() bool { return len(h.pids()) == 2 }, time.Minute, time.Millisecond)
	interleavings := func() int {
		log, err := rdb.LRange(t.Context(), "p:log", 0, -1).Result()
		require.NoError(t, err)
		return interleaved(log)
	}
	rounds := 0
	for ; rounds < 200 && (interleavings() == 0 || len(h.overlaps()) == 0); rounds++ {
		pid := h.holder(t)
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		wait(t, 2*ttl)
		require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
		wait(t, ttl/2)
	}
	for _, w := range workers {
		require.NoError(t, w.Stop())
	}
	t.Logf("%d rounds, %d interleavings, %d overlaps", rounds, interleavings(), len(h.overlaps()))
	require.Positive(t, interleavings(), "a stopped holder goes on writing")
	require.NotEmpty(t, h.overlaps(), "and holds the lock beside another")
}

// wait lets time pass for other processes.
func wait(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
