package counter

import (
	"cmp"
	_ "embed"
	"slices"
	"strconv"

	"github.com/spillway-go/spillway/internal/script"
)

// How totals lie in Redis is a prelude, the same functions in two ways.
var (
	//go:embed plain.lua
	plainLua string
	//go:embed packed.lua
	packedLua string
	//go:embed cold.lua
	coldLua string
)

// A block is 256 objects with neighbouring ids. The figures are part of the layout.
const (
	blockBits = 8
	cellBytes = 4
)

// scripts are those of one layout.
type scripts struct{ flush, read, sync, toggle, toggleAt *script.Script }

func newScripts(prelude string) *scripts {
	return &scripts{
		flush: script.New(script.Token, prelude, flushLua), read: script.New(script.Read, prelude, readLua),
		sync: script.New(script.Token, prelude, syncLua), toggle: script.New(script.Token, prelude, setLua, toggleLua),
		toggleAt: script.New(script.Token, prelude, bitsLua, toggleLua),
	}
}

var plain, packed, cold = newScripts(plainLua), newScripts(packedLua), newScripts(packedLua + coldLua)

// shardOf returns the shard of a key: objects of a block share it.
func (c *Counter) shardOf(n name) *shard {
	if c.schema.Packed {
		n.id >>= blockBits
	}
	return &c.shards[shardOf(n)]
}

// keysOf returns the keys of a name: those that its prelude expects.
func (c *Counter) keysOf(s *shard, n name) []string {
	if !c.schema.Packed {
		return []string{s.keyOf(n)}
	}
	block := strconv.FormatInt(n.id>>blockBits, 10)
	keys := []string{s.space.Key("b:" + block), s.space.Key("o:" + block)}
	if c.opts.Cold != nil {
		keys = append(keys, s.space.Key("e:"+block), s.space.Key("i"))
	}
	return keys
}

// cell is what the scripts call a field of an object.
func (c *Counter) cell(n name, field int) any {
	if !c.schema.Packed {
		return c.schema.Fields[field].Name
	}
	return field<<blockBits | int(n.id&(1<<blockBits-1))
}

// blockLen is the length of a block, in bytes.
func (c *Counter) blockLen() int { return len(c.schema.Fields) << blockBits * cellBytes }

// groups cuts what has names into runs that share their keys, and sorts it to that end.
func groups[T any](c *Counter, all []T, nameOf func(T) name) [][]T {
	if c.schema.Packed {
		slices.SortFunc(all, func(a, b T) int { return cmp.Compare(nameOf(a).id, nameOf(b).id) })
	}
	var out [][]T
	for begin, i := 0, 1; i <= len(all); i++ {
		if i < len(all) && c.schema.Packed && nameOf(all[i]).id>>blockBits == nameOf(all[begin]).id>>blockBits {
			continue
		}
		out = append(out, all[begin:i])
		begin = i
	}
	return out
}
