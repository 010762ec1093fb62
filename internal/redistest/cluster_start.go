package redistest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// A node that boots as a master serves nothing for two seconds (Redis calls it
// CLUSTER_WRITABLE_DELAY). A node that boots as a replica has no such delay, and
// a replica may be told to take its master's slots over without asking anybody.
// So every node here boots as the replica of a master that does not exist, from
// a configuration file that names the whole cluster; one node of each shard takes
// over, its fellows follow it, and the ghosts are forgotten. A cluster of one
// serves after 20 ms instead of 2 s.

// fieldsBeforeSlots is the number of fields that a line about a node has in
// nodes.conf and CLUSTER NODES, if the node has no slots.
const fieldsBeforeSlots = 8

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

// While the nodes boot, on a machine that may be busy, nobody shall suspect
// anybody of being dead; afterwards a failover shall begin soon (in milliseconds). Where
// there is no replica nothing can fail over: a master that is thought dead, for it got no
// processor or was killed, would only take the whole cluster with it.
const (
	bootNodeTimeout = "30000"
	nodeTimeout     = "1000"
)

// startCluster starts a cluster and returns its nodes, masters first, when it
// serves and every replica is in sync.
func startCluster(ctx context.Context, masters, replicasEach int) (nodes []*Proc, err error) {
	err = retryTaken(func() error {
		nodes = nil
		for range masters * (1 + replicasEach) {
			p, err := newProc(
				"--cluster-enabled", "yes",
				"--cluster-node-timeout", bootNodeTimeout,
				"--repl-diskless-sync-delay", "0")
			if err != nil {
				closeAll(nodes)
				return err
			}
			nodes = append(nodes, p)
		}
		if err := bootCluster(ctx, nodes, masters); err != nil {
			closeAll(nodes)
			return err
		}
		return nil
	})
	return nodes, err
}

func bootCluster(ctx context.Context, nodes []*Proc, masters int) error {
	ghosts, err := writeNodesConf(nodes, masters)
	if err != nil {
		return err
	}
	if err := each(nodes, func(_ int, p *Proc) error { return p.run(ctx) }); err != nil {
		return err
	}
	for i, p := range nodes[:masters] {
		// Taking over before it has looked around, a node would have the delay.
		// Taking over before it has heard of the takeover before, it would take the
		// same epoch. Redis mends that later, by a new epoch for one of the two, with
		// which a node that was dead meanwhile defeats its own successor.
		if err := poll(ctx, func() error {
			return p.clusterSays(ctx, "cluster_state:ok", fmt.Sprintf("cluster_current_epoch:%d", masters+i))
		}); err != nil {
			return err
		}
		if err := p.ask(func(rdb *redis.Client) error {
			return rdb.Do(ctx, "cluster", "failover", "takeover").Err()
		}); err != nil {
			return err
		}
	}
	return each(nodes, func(i int, p *Proc) error {
		for _, g := range ghosts {
			if err := poll(ctx, func() error { return p.forget(ctx, g) }); err != nil {
				return err
			}
		}
		err := poll(ctx, func() error {
			return p.clusterSays(ctx, "cluster_state:ok", "cluster_slots_ok:16384",
				fmt.Sprintf("cluster_known_nodes:%d", len(nodes)),
				fmt.Sprintf("cluster_current_epoch:%d", 2*masters),
				fmt.Sprintf("cluster_my_epoch:%d", masters+i%masters+1))
		})
		if err != nil {
			return err
		}
		if masters == len(nodes) {
			return nil
		}
		p.args = append(p.args, "--cluster-node-timeout", nodeTimeout) // for a Restart
		if err := p.ask(func(rdb *redis.Client) error {
			return rdb.ConfigSet(ctx, "cluster-node-timeout", nodeTimeout).Err()
		}); err != nil {
			return err
		}
		if i < masters {
			return nil
		}
		return poll(ctx, func() error { return p.says(ctx, "replication", "master_link_status:up") })
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
		fmt.Fprintf(&b, "vars currentEpoch %d lastVoteEpoch 0\n", masters)
		if err := os.WriteFile(filepath.Join(p.dir, "nodes.conf"), []byte(b.String()), 0o600); err != nil {
			return nil, fmt.Errorf("redistest: %w", err)
		}
	}
	return ghosts, nil
}

// forget makes p forget a ghost that has lost its slots. Forgotten earlier, its
// slots would be nobody's in p's eyes: the cluster would be down, and the delay back.
func (p *Proc) forget(ctx context.Context, ghost member) error {
	return p.ask(func(rdb *redis.Client) error {
		nodes, err := rdb.ClusterNodes(ctx).Result()
		if err != nil {
			return err
		}
		for line := range strings.Lines(nodes) {
			if strings.HasPrefix(line, ghost.id) && len(strings.Fields(line)) > fieldsBeforeSlots {
				return errors.New("a ghost still has slots")
			}
		}
		// This fails while p is still the ghost's replica.
		return rdb.ClusterForget(ctx, ghost.id).Err()
	})
}

// clusterSays returns nil when all lines are in p's CLUSTER INFO.
func (p *Proc) clusterSays(ctx context.Context, lines ...string) error {
	return p.ask(func(rdb *redis.Client) error {
		info, err := rdb.ClusterInfo(ctx).Result()
		if err != nil {
			return err
		}
		return hasLines(info, lines)
	})
}

// each calls f for all nodes at once.
func each(nodes []*Proc, f func(i int, p *Proc) error) error {
	var g errgroup.Group
	for i, p := range nodes {
		g.Go(func() error { return f(i, p) })
	}
	return g.Wait()
}

func closeAll(nodes []*Proc) {
	for _, p := range nodes {
		p.Close()
	}
}
