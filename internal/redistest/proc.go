package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a server may take to start, a cluster to form or a
// failover to happen: many times what they usually take, as a machine that runs
// several packages' tests at once is slow.
const patience = 30 * time.Second

// errPortTaken is the end of a server whose port somebody took first.
var errPortTaken = errors.New("port taken")

// A Proc is a redis-server process. Its methods may be called by several
// goroutines.
type Proc struct {
	dir    string
	port   port
	args   []string // of the command line, port included
	shared bool     // other tests use the process too

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  <-chan struct{} // closed when cmd has ended and was reaped
	closed  bool
	clients []*redis.Client
}

// Start starts a server outside a test; Close ends it. Inside a test, Server
// is shorter. The server listens on 127.0.0.1, keeps nothing on disk unless
// args (as on redis-server's command line) say otherwise, and works in a
// directory of its own. On Linux it ends when the calling process ends, however
// that ends.
func Start(ctx context.Context, args ...string) (p *Proc, err error) {
	err = retryTaken(func() error {
		if p, err = newProc(args...); err != nil {
			return err
		}
		if err = p.run(ctx); err != nil {
			p.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// retryTaken calls start until it ends in another way than that somebody took
// a port between its choice and its use.
func retryTaken(start func() error) error {
	for {
		if err := start(); !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

// newProc returns a server that is yet to run, with a port and a directory.
func newProc(args ...string) (*Proc, error) {
	port, err := claimPort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		port.release()
		return nil, fmt.Errorf("redistest: %w", err)
	}
	defaults := []string{
		"--port", strconv.Itoa(port.n),
		"--bind", "127.0.0.1",
		"--dir", dir,
		"--save", "",
		"--appendonly", "no",
	}
	return &Proc{dir: dir, port: port, args: append(defaults, args...)}, nil
}

// run starts the process and returns when it serves.
func (p *Proc) run(ctx context.Context) error {
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("redistest: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	before := len(p.Log())
	cmd := exec.Command("redis-server", p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	if err := spawn(cmd); err != nil {
		return fmt.Errorf("redistest: start redis-server: %w", err)
	}
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	exited := make(chan struct{})
	go func() {
		err := cmd.Wait()
		close(exited)
		ended(fmt.Errorf("it ended: %w", err))
	}()
	p.mu.Lock()
	p.cmd, p.exited = cmd, exited
	p.mu.Unlock()
	if err := p.awaitReady(ctx, cmd.Process.Pid); err != nil {
		p.kill()
		said := p.Log()[before:]
		if strings.Contains(said, "Address already in use") {
			err = errPortTaken
		}
		return fmt.Errorf("redistest: redis-server %s: %w\n%s", strings.Join(p.args, " "), err, said)
	}
	return nil
}

// awaitReady returns nil when the process pid answers on the port with its
// data loaded; it does not fall for another process that has the port.
func (p *Proc) awaitReady(ctx context.Context, pid int) error {
	return poll(ctx, func() error {
		if err := p.says(ctx, "server", "process_id:"+strconv.Itoa(pid)); err != nil {
			return err
		}
		return p.ask(func(rdb *redis.Client) error { return rdb.Ping(ctx).Err() }) // LOADING
	})
}

// poll calls check until it returns nil, for as long as patience and ctx last.
func poll(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Addr returns the server's host:port.
func (p *Proc) Addr() string { return local(p.port.n) }

// Dir returns the server's working directory.
func (p *Proc) Dir() string { return p.dir }

// Log returns what the server has logged, over its restarts.
func (p *Proc) Log() string {
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (p *Proc) logFile() string { return filepath.Join(p.dir, "log") }

// PID returns the id of the process, which a Restart changes.
func (p *Proc) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Client returns a client of the server that Close (or the end of the test)
// closes; the package comment says how it is set.
func (p *Proc) Client(modify ...func(*redis.Options)) *redis.Client {
	rdb := newClient(p.Addr(), modify)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients = append(p.clients, rdb)
	return rdb
}

// Executions returns how often the server has run command since it started
// ("evalsha", "config|get"), including runs that failed. What a script calls
// counts as well: to count runs of a script, count a command that it alone uses.
func (p *Proc) Executions(ctx context.Context, command string) (int, error) {
	var info string
	err := p.ask(func(rdb *redis.Client) (err error) {
		info, err = rdb.Info(ctx, "commandstats").Result()
		return err
	})
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+strings.ToLower(command)+":calls="); ok {
			calls, _, _ := strings.Cut(rest, ",")
			return strconv.Atoi(calls)
		}
	}
	return 0, nil
}

// ask calls f with a client for the harness's own questions: it gives up soon
// on a server that is down or paused.
func (p *Proc) ask(f func(rdb *redis.Client) error) error { return p.askWithin(time.Second, f) }

// askWithin is ask, with a patience of its own for what cannot be asked again.
func (p *Proc) askWithin(d time.Duration, f func(rdb *redis.Client) error) error {
	conn, err := net.DialTimeout("tcp4", p.Addr(), d)
	if err != nil {
		return fmt.Errorf("redistest: %w", err) // go-redis would log it as well
	}
	_ = conn.Close()
	rdb := redis.NewClient(&redis.Options{
		Addr: p.Addr(), DialerRetries: 1, MaxRetries: -1, ReadTimeout: d, PoolSize: 1,
	})
	defer func() { _ = rdb.Close() }()
	if err := f(rdb); err != nil {
		return fmt.Errorf("redistest: %s: %w", p.Addr(), err)
	}
	return nil
}

// says returns nil when all lines are in that section of p's INFO.
func (p *Proc) says(ctx context.Context, section string, lines ...string) error {
	return p.ask(func(rdb *redis.Client) error {
		info, err := rdb.Info(ctx, section).Result()
		if err != nil {
			return err
		}
		return hasLines(info, lines)
	})
}

func hasLines(info string, lines []string) error {
	for _, line := range lines {
		if !strings.Contains(info, line+"\r\n") {
			return fmt.Errorf("it does not say %s", line)
		}
	}
	return nil
}

// Kill ends the process with SIGKILL, as a crash does, and returns when it is
// gone. Clients stay open; Restart brings the server back. Kill, Pause and
// Restart panic on a shared server.
func (p *Proc) Kill() {
	p.mustOwn()
	p.kill()
}

func (p *Proc) kill() {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd == nil {
		return // it never started
	}
	_ = cmd.Process.Kill() // fails only if it has ended
	<-exited
}

// Pause stops the process with SIGSTOP: connections stay open, new ones are
// accepted by the kernel, nothing is answered. It returns when the process has
// stopped. It panics if the process is not running.
func (p *Proc) Pause() { p.signal(stop) }

// Resume ends a Pause.
func (p *Proc) Resume() { p.signal(resume) }

func (p *Proc) signal(f func(*os.Process) error) {
	p.mustOwn()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := f(p.cmd.Process); err != nil {
		panic(fmt.Errorf("redistest: signal redis-server: %w", err))
	}
}

// Restart starts the server again on the same port and directory, killing it
// first if it runs, and returns when it serves. Scripts are forgotten, and so are
// the data unless persistence was asked for.
func (p *Proc) Restart(ctx context.Context) error {
	p.Kill()
	return p.run(ctx)
}

func (p *Proc) mustOwn() {
	if p.shared {
		panic("redistest: a shared server must not be killed, paused or restarted: take one from Server")
	}
}

// Close closes the server's clients, ends it and removes its directory. Only
// the first call does anything. A shared server is left running.
func (p *Proc) Close() {
	p.mu.Lock()
	closed, clients := p.closed, slices.Clone(p.clients)
	p.closed = true
	p.mu.Unlock()
	if closed {
		return
	}
	for _, rdb := range clients {
		_ = rdb.Close()
	}
	if p.shared {
		return
	}
	p.kill()
	p.port.release()
	_ = os.RemoveAll(p.dir)
}

// share returns a Proc for one more test on the same process.
func (p *Proc) share() *Proc {
	return &Proc{dir: p.dir, port: p.port, args: p.args, shared: true, cmd: p.cmd, exited: p.exited}
}
