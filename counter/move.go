package counter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed idle.lua
	idleLua string
	//go:embed snapshot.lua
	snapshotLua string
	//go:embed evict.lua
	evictLua string
)

var (
	idleScript     = script.New(script.Read, idleLua)
	snapshotScript = script.New(script.Read, snapshotLua)
	evictScript    = script.New(script.State, evictLua)
)

// movesAtOnce is how many blocks of a shard one look for idle ones takes.
const movesAtOnce = 100

// moveUntilClosed moves idle blocks out, every tenth of Options.ColdAfter, at most a
// minute apart.
func (c *Counter) moveUntilClosed(ctx context.Context) {
	tick := time.NewTicker(min(c.opts.ColdAfter/10, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.moveIdle(ctx); err != nil {
				c.opts.Logger.Warn("counter: idle blocks not moved; trying again", "schema", c.schema.Name, "error", err)
			}
		case <-c.stop:
			return
		}
	}
}

// moveIdle moves the blocks that have been idle for Options.ColdAfter.
func (c *Counter) moveIdle(ctx context.Context) (err error) {
	for i := range c.shards {
		for !c.closed.Load() {
			blocks, e := c.idle(ctx, &c.shards[i])
			if e != nil {
				return errors.Join(err, e)
			}
			moved := false
			for _, block := range blocks {
				m, e := c.move(ctx, &c.shards[i], block)
				err = errors.Join(err, e)
				moved = moved || m
			}
			if len(blocks) < movesAtOnce || !moved {
				break
			}
		}
	}
	return err
}

func (c *Counter) idle(ctx context.Context, s *shard) (blocks []int64, err error) {
	reply, err := idleScript.Run(ctx, c.rdb, script.Call{
		Keys: []string{s.space.Key("i")}, Args: []any{int64(c.opts.ColdAfter / time.Second), movesAtOnce},
	})
	if err != nil {
		return nil, err
	}
	all, _ := reply.([]any)
	for _, one := range all {
		text, _ := one.(string)
		block, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: block %q among the idle", ErrUnavailable, text)
		}
		blocks = append(blocks, block)
	}
	return blocks, nil
}

// move takes a block out of Redis, and reports whether it is out: it is written down,
// then taken out if it is still as it was written, and then known to be out. After
// any of these steps the mover may be killed, or be overtaken by another or by a
// change.
func (c *Counter) move(ctx context.Context, s *shard, block int64) (moved bool, err error) {
	keys := c.keysOf(s, name{id: block << blockBits})
	return c.moveAs(ctx, s, block, func(here, away string) (bool, error) {
		out, err := evictScript.Run(ctx, c.rdb, evictCall(keys, here, away, block))
		if err != nil {
			return false, fmt.Errorf("counter: block %d: %w", block, err)
		}
		return out == int64(1), nil // if not, it was changed meanwhile, and so is not idle
	})
}

func evictCall(keys []string, here, away string, block int64) script.Call {
	return script.Call{Keys: keys, Args: []any{here, away, block}}
}

// moveAs is move with a way of its own to take a block with one mark out under another.
func (c *Counter) moveAs(ctx context.Context, s *shard, block int64, evict func(here, away string) (bool, error)) (moved bool, err error) {
	keys := c.keysOf(s, name{id: block << blockBits})
	reply, err := snapshotScript.Run(ctx, c.rdb, script.Call{Keys: keys})
	if err != nil {
		return false, err
	}
	words, _ := reply.([]any)
	text := make([]string, len(words))
	for i := range words {
		text[i], _ = words[i].(string)
	}
	var epoch, version int64
	if len(text) < 2 || len(text)%2 != 0 {
		return false, fmt.Errorf("%w: unexpected reply %v", ErrUnavailable, reply)
	}
	if n, _ := fmt.Sscanf(text[0], "h %d %d", &epoch, &version); n != 2 {
		return false, nil // it is away already
	}
	if text[1] == "" {
		return false, fmt.Errorf("%w: block %d, of version %d", ErrLost, block, version)
	}
	b, err := c.opts.Cold.Load(ctx, c.coldName(), block)
	if err != nil {
		return false, c.coldError(block, err)
	}
	if b.Revision == 0 {
		return false, fmt.Errorf("%w: the cold store knows nothing of block %d", ErrLost, block)
	}
	if b.Epoch != epoch || b.Version > version {
		return false, nil // the snapshot is old
	}
	b = ColdBlock{b.Revision + 1, Leaving, epoch, version, []byte(strings.Join(text[2:], " ") + separator + text[1])}
	if saved, err := c.opts.Cold.Save(ctx, c.coldName(), block, b); err != nil || !saved {
		return false, c.notSaved(block, err)
	}
	if out, err := evict(text[0], mark(false, epoch, version)); err != nil || !out {
		return false, err
	}
	b.Revision++
	b.State = Cold
	_, err = c.opts.Cold.Save(ctx, c.coldName(), block, b)
	return true, c.notSaved(block, err)
}

func (c *Counter) notSaved(block int64, err error) error {
	if err == nil {
		return nil // somebody else was first
	}
	return c.coldError(block, err)
}
