// Package chaos runs tests over several processes, some of which are killed.
//
// A test binary starts itself again as a worker: its TestMain calls [Main] with
// the jobs that a worker can be given, and a test calls [Start]. A worker reports
// what it was told, line by line, as it learns it, so that the parent knows it
// even of a worker that was killed in the next moment.
package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// In the environment of a worker: the name of its job, and its config.
const (
	jobEnv    = "SPILLWAY_CHAOS_JOB"
	configEnv = "SPILLWAY_CHAOS_CONFIG"
)

// grace is how long a job may go on after its context has ended.
const grace = 20 * time.Second

// A Job is what a worker process does. Its context ends when the parent stops the
// worker, and when the parent is no more.
type Job func(ctx context.Context, w *Worker) error

// A Worker is the worker process's side.
type Worker struct {
	mu  sync.Mutex
	out io.Writer
}

// Config decodes what Start was given.
func (w *Worker) Config(into any) error {
	return json.Unmarshal([]byte(os.Getenv(configEnv)), into)
}

// Report sends v, as JSON, to the parent. When it has returned the parent will get
// it, whatever happens to this process. It may be called by several goroutines.
func (w *Worker) Report(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("chaos: report: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.out.Write(append(line, '\n'))
	return err
}

// Main runs the tests, which m is, or in a worker its job. A TestMain calls it last.
func Main(m interface{ Run() int }, jobs map[string]Job) {
	name := os.Getenv(jobEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	job, ok := jobs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "chaos: no job %q\n", name)
		os.Exit(2)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent stops us or dies
		cancel()
		time.Sleep(grace)
		fmt.Fprintf(os.Stderr, "chaos: job %q does not end\n", name)
		os.Exit(3)
	}()
	if err := job(ctx, &Worker{out: os.Stdout}); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: job %q: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A Process is the parent's side of a worker.
type Process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	said  bytes.Buffer // on standard error

	ended chan struct{}
	err   error // of its end, or of a report; read once ended is closed
}

// Start starts a worker with the job of that name, and calls report, from one
// goroutine, for every report of it. The end of the test kills it.
func Start[R any](t testing.TB, job string, config any, report func(R)) *Process {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{name: job, cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), jobEnv+"="+job, configEnv+"="+string(text))
	p.cmd.Stderr = &p.said
	p.stdin, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	go func() {
		defer close(p.ended)
		err := each(out, report)
		// The reports are read to their end before the process is waited for.
		p.err = errors.Join(err, p.cmd.Wait())
	}()
	return p
}

// each decodes the reports. The last one of a killed worker may be cut short: it
// was not reported.
func each[R any](out io.Reader, report func(R)) error {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var r R
		if err := json.Unmarshal(line, &r); err != nil {
			_, _ = io.Copy(io.Discard, lines) // or the worker blocks
			return fmt.Errorf("chaos: report %q: %w", line, err)
		}
		report(r)
	}
}

// Kill ends the worker with SIGKILL and returns when it is gone and all that it
// had reported was told.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.ended
}

// Stop ends the job's context and is otherwise Wait.
func (p *Process) Stop() error {
	_ = p.stdin.Close()
	return p.Wait()
}

// Wait returns how the worker ended: nil if its job returned nil.
func (p *Process) Wait() error {
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("chaos: worker %q: %w\n%s", p.name, p.err, strings.TrimSpace(p.said.String()))
	}
	return nil
}
