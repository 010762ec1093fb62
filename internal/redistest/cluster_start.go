package redistest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// A node that boots as a master serves nothing for two seconds (Redis calls it
// CLUSTER_WRITABLE_DELAY). A node that boots as a replica has no such delay, and
// a replica may be told to take its master's slots over without asking anybody.
// So every node here boots as the replica of a master that does not exist, from
// a configuration file that names the whole cluster; one node of each shard takes
// over, its fellows follow it, and the ghosts are forgotten. A cluster of one
// serves after 0.1 s instead of 2.1 s.

// A member is a node, or a ghost, in the configuration files.
type member struct {
	id   string
	port int
}

func newMember(port int) member {
	return member{fmt.Sprintf("%016x%016x%08x", rand.Uint64(), rand.Uint64(), rand.Uint32()), port}
}

func (m member) line(flags, master string, epoch int) string {
	return fmt.Sprintf("%s 127.0.0.1:%d@%d %s %s 0 0 %d connected",
		m.id, m.port, m.port+busOffset, flags, master, epoch)
}

// startCluster starts a cluster and returns its nodes, masters first, when it
// serves and every replica is in sync.
func startCluster(ctx context.Context, masters, replicasEach int) (nodes []*Proc, err error) {
	for {
		nodes, err = bootCluster(ctx, masters, replicasEach)
		if !errors.Is(err, errPortTaken) {
			return nodes, err
		}
	}
}

func bootCluster(ctx context.Context, masters, replicasEach int) (nodes []*Proc, err error) {
	defer func() {
		if err != nil {
			for _, p := range nodes {
				p.Close()
			}
		}
	}()
	for range masters * (1 + replicasEach) {
		dir, err := os.MkdirTemp("", "redistest-")
		if err != nil {
			return nodes, fmt.Errorf("redistest: %w", err)
		}
		port, err := claimPort()
		if err != nil {
			_ = os.RemoveAll(dir)
			return nodes, err
		}
		p := newProc(dir, port,
			"--cluster-enabled", "yes",
			"--cluster-node-timeout", "1000",
			"--repl-diskless-sync-delay", "0")
		p.cleanup = func() { _ = os.RemoveAll(dir) }
		nodes = append(nodes, p)
	}
	ghosts, err := writeNodesConf(nodes, masters)
	if err != nil {
		return nodes, err
	}
	if err := each(nodes, func(_ int, p *Proc) error { return p.run(ctx) }); err != nil {
		return nodes, err
	}
	for _, p := range nodes[:masters] {
		if err := p.do(ctx, "cluster", "failover", "takeover"); err != nil {
			return nodes, err
		}
	}
	return nodes, each(nodes, func(i int, p *Proc) error {
		// A replica that has not yet followed its new master cannot forget the
		// ghost: polling covers that.
		for _, g := range ghosts {
			if err := poll(ctx, func() error { return p.do(ctx, "cluster", "forget", g.id) }); err != nil {
				return err
			}
		}
		return poll(ctx, func() error { return p.inCluster(ctx, len(nodes), i >= masters) })
	})
}

// writeNodesConf writes every node's configuration file, and returns the ghosts
// in it. Node i belongs to the shard i % masters.
func writeNodesConf(nodes []*Proc, masters int) (ghosts []member, err error) {
	members := make([]member, len(nodes))
	for i, p := range nodes {
		members[i] = newMember(p.port.n)
	}
	for range masters {
		ghosts = append(ghosts, newMember(1)) // nobody listens there
	}
	for self, p := range nodes {
		var b strings.Builder
		for i, g := range ghosts {
			first, last := 16384*i/masters, 16384*(i+1)/masters-1
			fmt.Fprintf(&b, "%s %d-%d\n", g.line("master", "-", i+1), first, last)
		}
		for i, m := range members {
			flags := "slave"
			if i == self {
				flags = "myself,slave"
			}
			b.WriteString(m.line(flags, ghosts[i%masters].id, i%masters+1) + "\n")
		}
		// Each node that takes over takes the epoch after this one: all different.
		fmt.Fprintf(&b, "vars currentEpoch %d lastVoteEpoch 0\n", 100+self)
		if err := os.WriteFile(filepath.Join(p.dir, "nodes.conf"), []byte(b.String()), 0o600); err != nil {
			return nil, fmt.Errorf("redistest: %w", err)
		}
	}
	return ghosts, nil
}

// inCluster returns nil when p sees a whole cluster of n nodes and, as a
// replica, is in sync with its master.
func (p *Proc) inCluster(ctx context.Context, n int, replica bool) error {
	rdb := newClient(p.Addr(), nil)
	defer func() { _ = rdb.Close() }()
	info, err := rdb.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	for _, want := range []string{"cluster_state:ok\r", "cluster_slots_ok:16384\r", fmt.Sprintf("cluster_known_nodes:%d\r", n)} {
		if !strings.Contains(info, want) {
			return fmt.Errorf("no %q in CLUSTER INFO of %s", want, p.Addr())
		}
	}
	info, err = rdb.Info(ctx, "replication").Result()
	if err != nil {
		return err
	}
	want := "role:master\r"
	if replica {
		want = "master_link_status:up\r"
	}
	if !strings.Contains(info, want) {
		return fmt.Errorf("no %q in INFO of %s", want, p.Addr())
	}
	return nil
}

// each calls f for all nodes at once.
func each(nodes []*Proc, f func(i int, p *Proc) error) error {
	var g errgroup.Group
	for i, p := range nodes {
		g.Go(func() error { return f(i, p) })
	}
	return g.Wait()
}
