package counter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

// A ColdStore keeps blocks while they are not in Redis, durably: counter/countersql is
// one in SQL. A schema is named with the prefix of its keys, "spillway:post".
type ColdStore interface {
	// Load returns what was saved last; the zero ColdBlock if nothing was.
	Load(ctx context.Context, schema string, block int64) (ColdBlock, error)
	// Save replaces what is there, if its Revision is b.Revision - 1, where nothing has
	// the revision 0, and reports whether it did. After an error either may be so.
	Save(ctx context.Context, schema string, block int64, b ColdBlock) (saved bool, err error)
}

// A ColdBlock is what a ColdStore keeps of 256 objects: absolute totals, and the moment
// in the block's history that they are of.
type ColdBlock struct {
	Revision int64 // of this record: counts Saves
	State    ColdState
	Epoch    int64  // how often the block has come to Redis
	Version  int64  // how often it was changed there
	Totals   []byte // at that version
}

// A ColdState is where a block is.
type ColdState int

// The states of a block. Only in Cold a Redis that knows nothing of the block is as it
// should be.
const (
	Hot     ColdState = iota + 1 // in Redis, or coming back with these totals
	Leaving                      // in Redis, unless it has left at this version
	Cold                         // here
)

//go:embed restore.lua
var restoreLua string

var restoreScript = script.New(script.State, restoreLua)

const (
	// maxReturns is how often a call brings a block back that leaves again, and how many
	// steps it takes for one return beside others who work at it.
	maxReturns = 20
	// separator ends what is beside the cells in ColdBlock.Totals.
	separator = "\x00"
)

// mark is what Redis remembers of a block, whether it is there or not. Marks of a block
// only grow, so that no late script can take one for its own.
func mark(here bool, epoch, version int64) string {
	letter := "c "
	if here {
		letter = "h "
	}
	return letter + strconv.FormatInt(epoch, 10) + " " + strconv.FormatInt(version, 10)
}

func (c *Counter) coldName() string {
	prefix := c.opts.Prefix
	if prefix == "" {
		prefix = "spillway"
	}
	return prefix + ":" + c.schema.Name
}

// bringBack puts the block of an object into Redis, and reports whether it is there.
// One that was never counted is made if create is set.
//
// It asks the store first and Redis then. What the store knew by then Redis must know
// too, unless the block was at rest or has moved on.
func (c *Counter) bringBack(ctx context.Context, s *shard, id int64, create bool) (here bool, err error) {
	block := id >> blockBits
	keys := c.keysOf(s, name{id: id})
	contradictions := 0
	for range maxReturns {
		b, err := c.opts.Cold.Load(ctx, c.coldName(), block)
		if err != nil {
			return false, c.coldError(block, err)
		}
		was, err := c.rdb.Get(ctx, keys[2]).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		away := mark(false, b.Epoch, b.Version) // what Redis should say
		switch {
		case strings.HasPrefix(was, "h"):
			return true, nil
		case b.Revision == 0 && !create && (was == "" || was == away):
			return false, nil
		case was == "" && (b.State == Hot || b.State == Leaving):
			return false, fmt.Errorf("%w: block %d, of version %d or later", ErrLost, block, b.Version)
		case was == "":
			// Never counted, or Redis has forgotten what is safe here. SETNX may run twice.
			if err := c.rdb.SetNX(ctx, keys[2], away, 0).Err(); err != nil {
				return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			continue
		}
		switch {
		case b.State == Hot && was == mark(false, b.Epoch-1, b.Version):
			// Somebody has begun this return.
		case b.State != Hot && was == away:
			b = ColdBlock{b.Revision + 1, Hot, b.Epoch + 1, b.Version, b.Totals}
			saved, err := c.opts.Cold.Save(ctx, c.coldName(), block, b)
			if err != nil {
				return false, c.coldError(block, err)
			}
			if !saved {
				continue
			}
		default:
			// Between the two questions the block has moved on, or one of them has lost
			// what it knew.
			if contradictions++; contradictions > maxReturns/2 {
				return false, fmt.Errorf("%w: block %d: redis has %q, the store epoch %d, version %d", ErrLost, block, was, b.Epoch, b.Version)
			}
			continue
		}
		if err := c.restore(ctx, keys, block, was, b); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("%w: block %d goes as soon as it has come", ErrUnavailable, block)
}

// restore makes a block's return visible, which a mark makes happen once.
func (c *Counter) restore(ctx context.Context, keys []string, block int64, was string, b ColdBlock) error {
	beside, cells, _ := strings.Cut(string(b.Totals), separator)
	if len(cells) < c.blockLen() {
		cells += strings.Repeat("\x00", c.blockLen()-len(cells))
	}
	args := []any{was, mark(true, b.Epoch, b.Version), block, cells}
	for _, word := range strings.Fields(beside) {
		args = append(args, word)
	}
	if _, err := restoreScript.Run(ctx, c.rdb, script.Call{Keys: keys, Args: args}); err != nil {
		return lost(script.NotDone(err))
	}
	return nil
}

// bringAllBack brings back the blocks of a shard's batch that its script did not find,
// which the script gave as their negative places.
func (c *Counter) bringAllBack(ctx context.Context, s *shard, places []any) error {
	all := groups(c, s.flight.objects, func(o *object) name { return o.name })
	for _, p := range places {
		place, _ := p.(int64)
		if _, err := c.bringBack(ctx, s, all[-place-1][0].name.id, true); err != nil {
			return err
		}
	}
	return nil
}

func (c *Counter) coldError(block int64, err error) error {
	return fmt.Errorf("%w: block %d in the cold store: %w", ErrUnavailable, block, err)
}
