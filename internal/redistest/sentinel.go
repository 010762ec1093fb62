package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	sentinels      = 3
	sentinelMaster = "main"
)

// A SentinelProcs is a master, its replica and three sentinels that watch them.
type SentinelProcs struct {
	tb        testing.TB
	data      []*Proc // master and replica, in no lasting order
	sentinels []*Proc
}

// Sentinel returns a master with one replica under three sentinels. A dead
// master is replaced after some three seconds. It takes about 0.1 s to start.
func Sentinel(t testing.TB) *SentinelProcs {
	t.Helper()
	requireServer(t)
	s := &SentinelProcs{tb: t}
	ctx := t.Context()
	master := Server(t, "--repl-diskless-sync-delay", "0")
	replica := Server(t, "--repl-diskless-sync-delay", "0", "--replicaof", fmt.Sprintf("127.0.0.1 %d", master.port.n))
	s.data = []*Proc{master, replica}
	// A sentinel looks at a replica when it starts and then every ten seconds.
	if err := poll(ctx, func() error { return replica.says(ctx, "replication", "master_link_status:up") }); err != nil {
		t.Fatal(err)
	}
	if err := retryTaken(func() error { return s.startSentinels(ctx) }); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.sentinels {
		t.Cleanup(p.Close)
		if err := poll(ctx, func() error { return p.watches(ctx) }); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// startSentinels starts sentinels that know each other and the replica from
// their configuration files: finding out takes them two seconds.
func (s *SentinelProcs) startSentinels(ctx context.Context) (err error) {
	s.sentinels = nil
	defer func() {
		if err != nil {
			closeAll(s.sentinels)
		}
	}()
	var members []member
	for range sentinels {
		p, err := newProc()
		if err != nil {
			return err
		}
		p.args = []string{filepath.Join(p.dir, "sentinel.conf"), "--sentinel"}
		members = append(members, newMember(p.port.n))
		s.sentinels = append(s.sentinels, p)
	}
	for self, p := range s.sentinels {
		var b strings.Builder
		fmt.Fprintf(&b, "bind 127.0.0.1\nport %d\ndir %s\n", p.port.n, p.dir)
		fmt.Fprintf(&b, "sentinel myid %s\n", members[self].id)
		fmt.Fprintf(&b, "sentinel monitor %s 127.0.0.1 %d %d\n", sentinelMaster, s.data[0].port.n, sentinels/2+1)
		fmt.Fprintf(&b, "sentinel down-after-milliseconds %s 1000\n", sentinelMaster)
		fmt.Fprintf(&b, "sentinel failover-timeout %s 5000\n", sentinelMaster)
		fmt.Fprintf(&b, "sentinel known-replica %s 127.0.0.1 %d\n", sentinelMaster, s.data[1].port.n)
		for i, m := range members {
			if i != self {
				fmt.Fprintf(&b, "sentinel known-sentinel %s 127.0.0.1 %d %s\n", sentinelMaster, m.port, m.id)
			}
		}
		if err := os.WriteFile(filepath.Join(p.dir, "sentinel.conf"), []byte(b.String()), 0o600); err != nil {
			return fmt.Errorf("redistest: %w", err)
		}
	}
	return each(s.sentinels, func(_ int, p *Proc) error { return p.run(ctx) })
}

// watches returns nil when the sentinel p could do a failover.
func (p *Proc) watches(ctx context.Context) error {
	return p.ask(func(rdb *redis.Client) error {
		if err := rdb.Do(ctx, "sentinel", "ckquorum", sentinelMaster).Err(); err != nil {
			return err
		}
		reply, err := rdb.Do(ctx, "sentinel", "replicas", sentinelMaster).Result()
		if err != nil {
			return err
		}
		// It promotes only a replica whose state it knows.
		for _, want := range []string{"master-link-status:ok", "flags:slave "} {
			if !strings.Contains(fmt.Sprint(reply), want) {
				return fmt.Errorf("no %s in %v", want, reply)
			}
		}
		return nil
	})
}

// Client returns a client that follows the master, and that the end of the
// test closes.
func (s *SentinelProcs) Client(modify ...func(*redis.FailoverOptions)) *redis.Client {
	o := &redis.FailoverOptions{MasterName: sentinelMaster, DialerRetries: 1}
	for _, p := range s.sentinels {
		o.SentinelAddrs = append(o.SentinelAddrs, p.Addr())
	}
	for _, f := range modify {
		f(o)
	}
	rdb := redis.NewFailoverClient(o)
	s.tb.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// Master returns the server that the sentinels take for the master.
func (s *SentinelProcs) Master() *Proc {
	s.tb.Helper()
	var addr []string
	err := poll(s.tb.Context(), func() error {
		return s.sentinels[0].ask(func(rdb *redis.Client) (err error) {
			addr, err = rdb.Do(s.tb.Context(), "sentinel", "get-master-addr-by-name", sentinelMaster).StringSlice()
			return err
		})
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, p := range s.data {
		if len(addr) == 2 && p.Addr() == addr[0]+":"+addr[1] {
			return p
		}
	}
	s.tb.Fatalf("redistest: the sentinels' master is %v", addr)
	return nil
}

// CutReplica keeps the replica from hearing of what is written from now on, and
// returns it. A failover makes it the master all the same, if it comes within five
// seconds: then the sentinels repair what was done here.
func (s *SentinelProcs) CutReplica() *Proc {
	s.tb.Helper()
	master := s.Master()
	for _, p := range s.data {
		if p == master {
			continue
		}
		err := poll(s.tb.Context(), func() error {
			return p.ask(func(rdb *redis.Client) error {
				return rdb.Do(s.tb.Context(), "replicaof", "127.0.0.1", "1").Err() // nobody is there
			})
		})
		if err != nil {
			s.tb.Fatal(err)
		}
		return p
	}
	s.tb.Fatal("redistest: no replica")
	return nil
}

// KillMaster kills the master and returns it. Restarted after the failover, it
// takes itself for a master until a sentinel turns it into a replica, which takes
// eight seconds and more.
func (s *SentinelProcs) KillMaster() *Proc {
	s.tb.Helper()
	p := s.Master()
	p.Kill()
	return p
}
