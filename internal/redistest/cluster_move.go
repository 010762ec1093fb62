package redistest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Nodes returns all nodes.
func (c *ClusterProcs) Nodes() []*Proc { return c.nodes }

// Masters returns the nodes that say they are masters and own slots. During a
// failover there may be too few.
func (c *ClusterProcs) Masters() []*Proc {
	c.tb.Helper()
	var masters []*Proc
	for _, p := range c.nodes {
		if self, err := c.self(p); err == nil && self.master && len(self.slots) > 0 {
			masters = append(masters, p)
		}
	}
	return masters
}

// MasterOf returns the node that serves key. During a failover it waits for
// the new master.
func (c *ClusterProcs) MasterOf(key string) *Proc {
	c.tb.Helper()
	slot := c.slot(key)
	var found *Proc
	err := poll(c.tb.Context(), func() error {
		epoch := -1
		for _, p := range c.nodes {
			// A master that comes back believes for a moment that it still is one:
			// the higher epoch tells.
			self, err := c.self(p)
			if err == nil && self.master && self.owns(slot) && self.epoch > epoch {
				found, epoch = p, self.epoch
			}
		}
		if found == nil {
			return fmt.Errorf("nobody owns slot %d", slot)
		}
		return nil
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return found
}

// KillMaster kills the node that serves key and returns it. A replica takes its
// place after some three seconds; restarted, the node becomes a replica.
func (c *ClusterProcs) KillMaster(key string) *Proc {
	c.tb.Helper()
	p := c.MasterOf(key)
	p.Kill()
	return p
}

// A Migration is a slot on its way from one master to another. Until Finish,
// commands on a key that has moved get ASK, those on a key that has not work as
// before, and those on one of each get TRYAGAIN.
type Migration struct {
	From, To *Proc

	c            *ClusterProcs
	slot         int
	fromID, toID string
}

// Migrate begins to move the slot of key to another master.
func (c *ClusterProcs) Migrate(key string) *Migration {
	c.tb.Helper()
	m := &Migration{From: c.MasterOf(key), c: c, slot: c.slot(key)}
	for _, p := range c.Masters() {
		if p != m.From {
			m.To = p
		}
	}
	if m.To == nil {
		c.tb.Fatal("redistest: there is no other master to migrate to")
	}
	m.fromID, m.toID = c.id(m.From), c.id(m.To)
	m.setSlot(m.To, "importing", m.fromID)
	m.setSlot(m.From, "migrating", m.toID)
	return m
}

// Move moves keys of the slot; absent ones are ignored.
func (m *Migration) Move(keys ...string) {
	m.c.tb.Helper()
	args := []any{"migrate", "127.0.0.1", m.To.port.n, "", 0, 5000, "keys"}
	for _, k := range keys {
		args = append(args, k)
	}
	m.c.ask(m.From, func(rdb *redis.Client) error { return rdb.Do(m.c.tb.Context(), args...).Err() })
}

// Finish moves the keys that are left and gives the slot to its new master.
func (m *Migration) Finish() {
	m.c.tb.Helper()
	for {
		var keys []string
		m.c.ask(m.From, func(rdb *redis.Client) (err error) {
			keys, err = rdb.ClusterGetKeysInSlot(m.c.tb.Context(), m.slot, 100).Result()
			return err
		})
		if len(keys) == 0 {
			break
		}
		m.Move(keys...)
	}
	// The new owner first: the other way round, nobody would own the slot.
	m.setSlot(m.To, "node", m.toID)
	for _, p := range m.c.Masters() {
		if p != m.To {
			m.setSlot(p, "node", m.toID)
		}
	}
}

func (m *Migration) setSlot(p *Proc, state, id string) {
	m.c.tb.Helper()
	m.c.ask(p, func(rdb *redis.Client) error {
		return rdb.Do(m.c.tb.Context(), "cluster", "setslot", m.slot, state, id).Err()
	})
}

func (c *ClusterProcs) ask(p *Proc, f func(rdb *redis.Client) error) {
	c.tb.Helper()
	if err := p.ask(f); err != nil {
		c.tb.Fatal(err)
	}
}

// slot asks any node that answers.
func (c *ClusterProcs) slot(key string) (slot int) {
	c.tb.Helper()
	err := poll(c.tb.Context(), func() (err error) {
		for _, p := range c.nodes {
			err = p.ask(func(rdb *redis.Client) error {
				n, err := rdb.ClusterKeySlot(c.tb.Context(), key).Result()
				slot = int(n)
				return err
			})
			if err == nil {
				return nil
			}
		}
		return err
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return slot
}

func (c *ClusterProcs) id(p *Proc) (id string) {
	c.tb.Helper()
	c.ask(p, func(rdb *redis.Client) (err error) {
		id, err = rdb.ClusterMyID(c.tb.Context()).Result()
		return err
	})
	return id
}

// A nodeSelf is what a node says about itself in CLUSTER NODES.
type nodeSelf struct {
	master bool
	epoch  int
	slots  []string // "5" or "0-99"
}

func (n nodeSelf) owns(slot int) bool {
	for _, s := range n.slots {
		first, last, ok := strings.Cut(s, "-")
		if !ok {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 == nil && err2 == nil && from <= slot && slot <= to {
			return true
		}
	}
	return false
}

func (c *ClusterProcs) self(p *Proc) (self nodeSelf, err error) {
	err = p.ask(func(rdb *redis.Client) error {
		nodes, err := rdb.ClusterNodes(c.tb.Context()).Result()
		if err != nil {
			return err
		}
		for line := range strings.Lines(nodes) {
			if f := strings.Fields(line); strings.Contains(f[2], "myself") {
				self.master = strings.Contains(f[2], "master")
				self.slots = f[fieldsBeforeSlots:]
				self.epoch, err = strconv.Atoi(f[6])
				return err
			}
		}
		return errors.New("it does not know itself")
	})
	return self, err
}
