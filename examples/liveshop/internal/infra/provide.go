package infra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/alicebob/miniredis/v2"
	mini "github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/proc"
)

// Provide brings up what cfg leaves to the program: an embedded Redis, a private
// redis-server, a SQLite file. It returns cfg with the addresses of what it brought
// up, for this process and its children, and a function that takes it away again.
func Provide(ctx context.Context, cfg Config) (Config, func(), error) {
	if cfg.Hold != 0 && cfg.Hold < 100*time.Millisecond { // as package stock wants it
		return cfg, nil, fmt.Errorf("-hold %v: want 100ms or more", cfg.Hold)
	}
	var undo []func()
	stop := func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	fail := func(err error) (Config, func(), error) {
		stop()
		return cfg, nil, err
	}
	switch {
	case cfg.Cluster != "" && cfg.Redis != "":
		return fail(errors.New("-redis and -redis-cluster exclude each other: say one"))
	case cfg.Cluster != "":
	case cfg.Redis == "":
		addr, end, err := embedRedis()
		if err != nil {
			return fail(fmt.Errorf("embedded Redis: %w", err))
		}
		cfg.Redis, undo = addr, append(undo, end)
	case cfg.Redis == "spawn":
		r, err := SpawnRedis(ctx)
		if err != nil {
			return fail(err)
		}
		cfg.Redis, undo = r.Addr, append(undo, r.Close)
	}
	if cfg.DB == "" {
		dir, err := os.MkdirTemp("", "liveshop")
		if err != nil {
			return fail(err)
		}
		undo = append(undo, func() { _ = os.RemoveAll(dir) })
		cfg.DB = "sqlite:" + filepath.Join(dir, "shop.db")
	}
	return cfg, stop, nil
}

// embedRedis simulates a Redis in this process, for others too.
func embedRedis() (addr string, stop func(), err error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return "", nil, err
	}
	// The packages ask whether keys may be evicted. Nothing is evicted here.
	err = m.Server().Register("CONFIG", func(c *mini.Peer, _ string, _ []string) {
		c.WriteLen(2)
		c.WriteBulk("maxmemory-policy")
		c.WriteBulk("noeviction")
	})
	if err != nil {
		m.Close()
		return "", nil, err
	}
	// Its clock for TTLs stands still by itself. The alternative, ClockTTL, looks at
	// every key that has a TTL with every command.
	const tick = 250 * time.Millisecond
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for t := time.NewTicker(tick); ; {
			select {
			case <-t.C:
				m.FastForward(tick)
			case <-ended:
				t.Stop()
				return
			}
		}
	}()
	return m.Addr(), func() { close(ended); <-gone; m.Close() }, nil
}

// A RedisServer is a redis-server of this program's own, with an append-only file
// that is synced before each answer: what it said yes to survives its death.
type RedisServer struct {
	Addr string
	dir  string
	p    *proc.Process
}

// SpawnRedis starts a redis-server on a free port of the loopback interface.
func SpawnRedis(ctx context.Context) (*RedisServer, error) {
	dir, err := os.MkdirTemp("", "liveshop-redis")
	if err != nil {
		return nil, err
	}
	r := &RedisServer{dir: dir}
	for range 5 { // somebody else may take the port in between
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			break
		}
		r.Addr = l.Addr().String()
		_ = l.Close()
		if err = r.Start(ctx); err == nil {
			return r, nil
		}
		if ctx.Err() != nil || errors.Is(err, exec.ErrNotFound) {
			_ = os.RemoveAll(dir)
			return nil, fmt.Errorf("redis-server: %w", err)
		}
	}
	_ = os.RemoveAll(dir)
	return nil, errors.New("redis-server does not start")
}

// Start starts the server, again after Kill, and waits until it answers.
func (r *RedisServer) Start(ctx context.Context) error {
	_, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return err
	}
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", r.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
	p, err := proc.Start(cmd)
	if err != nil {
		return err
	}
	r.p = p
	rdb := redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = rdb.Close() }()
	for {
		if rdb.Ping(ctx).Err() == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.Done():
			return errors.New("redis-server ended at once, port " + strconv.Quote(port))
		case <-ctx.Done():
			p.Kill()
			return ctx.Err()
		}
	}
}

// Kill ends the server as a crash does.
func (r *RedisServer) Kill() { r.p.Kill() }

// Close ends the server and removes its files.
func (r *RedisServer) Close() {
	r.p.Kill()
	_ = os.RemoveAll(r.dir)
}
