package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/proc"
)

// A Fleet is server processes: children of this one, that can be killed and started
// again. It runs this program with the command serve.
type Fleet struct {
	cfg  infra.Config
	logs io.Writer
	bin  []string

	mu      sync.Mutex
	members []*member
}

type member struct {
	name, addr string
	process    *proc.Process // the last one; nil before the first
	starting   chan struct{} // holds one: who starts it
}

// NewFleet starts a server of each name. The logs of all go to logs.
func NewFleet(ctx context.Context, cfg infra.Config, logs io.Writer, names ...string) (*Fleet, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg, logs: logs, bin: []string{self, "serve"}}
	for _, name := range names {
		f.members = append(f.members, &member{name: name, starting: make(chan struct{}, 1)})
	}
	var wg sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		wg.Go(func() { errs[i] = f.Start(ctx, name) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		f.Stop(ctx)
		return nil, err
	}
	return f, nil
}

func (f *Fleet) runs(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return m.process != nil && m.process.Running()
}

func (f *Fleet) find(name string) (*member, error) {
	i := slices.IndexFunc(f.members, func(m *member) bool { return m.name == name })
	if i < 0 {
		return nil, fmt.Errorf("demo: no server %q", name)
	}
	return f.members[i], nil
}

// Start starts a server, again after Kill, and waits until it serves. It does nothing
// if there is one, or somebody else has just started it.
func (f *Fleet) Start(ctx context.Context, name string) error {
	m, err := f.find(name)
	if err != nil {
		return err
	}
	select {
	case m.starting <- struct{}{}:
		defer func() { <-m.starting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.runs(m) {
		return nil
	}
	args := append(slices.Clone(f.bin[1:]), "-addr", "127.0.0.1:0", "-server", name, "-db", f.cfg.DB, "-secret", f.cfg.Secret, "-origins", f.cfg.Origins,
		"-hold", f.cfg.Hold.String())
	if f.cfg.Cluster != "" {
		args = append(args, "-redis-cluster", f.cfg.Cluster)
	} else {
		args = append(args, "-redis", f.cfg.Redis)
	}
	cmd := exec.Command(f.bin[0], args...)
	cmd.Stderr = f.logs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p, err := proc.Start(cmd)
	if err != nil {
		return err
	}
	// Its first line is the address, of a port that was free.
	first := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		first <- strings.TrimSpace(line)
	}()
	select {
	case line := <-first:
		addr, ok := strings.CutPrefix(line, "http://")
		if !ok {
			p.Kill()
			return fmt.Errorf("demo: server %s does not start", name)
		}
		f.mu.Lock()
		m.process, m.addr = p, addr
		f.mu.Unlock()
		return nil
	case <-ctx.Done():
		p.Kill()
		return ctx.Err()
	}
}

// Kill ends a server as a crash does. With an empty name it is the first that runs.
// It returns which it was.
func (f *Fleet) Kill(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.process != nil && m.process.Running() && (m.name == name || name == "") {
			m.process.Kill()
			return m.name, nil
		}
	}
	return "", fmt.Errorf("demo: no server %q runs", name)
}

// Down returns the names of the servers that do not run.
func (f *Fleet) Down() (names []string) {
	for _, m := range f.members {
		if !f.runs(m) {
			names = append(names, m.name)
		}
	}
	return names
}

// Addrs returns where the servers listen that run.
func (f *Fleet) Addrs() (addrs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.process != nil && m.process.Running() {
			addrs = append(addrs, m.addr)
		}
	}
	return addrs
}

// Stop asks all servers to stop, and kills those that do not within 10 s.
func (f *Fleet) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	var wg sync.WaitGroup
	for _, m := range f.members {
		if m.process != nil {
			wg.Go(func() { _ = m.process.Stop(ctx) }) // a signal's exit status says nothing
		}
	}
	wg.Wait()
}
