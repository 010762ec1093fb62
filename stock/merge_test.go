package stock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// twoParts are two buckets that were loaded with ten of tea each, and then had ops.
func twoParts(first, second []Op) []*part {
	var parts []*part
	for _, ops := range [][]Op{first, second} {
		p := &part{r: newReplay(), prev: "9-0", f: frozen{now: time.UnixMilli(99)}, peers: 2}
		p.gave, p.took, p.numbers = []int64{4, 4}, []int64{7, 7}, make([]int64, 2)
		for _, o := range append([]Op{{Kind: OpLoad, Items: []Item{{"tea", 10}}}}, ops...) {
			p.r.apply(o, Entry{})
		}
		parts = append(parts, p)
	}
	return parts
}

// What a ledger may have of a transfer, and what becomes of it.
func TestArrive(t *testing.T) {
	tea := func(kind OpKind, id string, q int64) Op { return Op{Kind: kind, ID: id, Items: []Item{{"tea", q}}} }
	left := func(parts []*part) [2]int64 {
		return [2]int64{parts[0].r.levels["tea"].Left, parts[1].r.levels["tea"].Left}
	}

	parts := twoParts([]Op{tea(OpGive, "0>1#8", 1), tea(OpGive, "0>1#9", 2)}, []Op{tea(OpTake, "0>1#8", 1)})
	twice, err := merge(parts)
	require.NoError(t, err)
	require.Empty(t, twice)
	require.Equal(t, [2]int64{7, 13}, left(parts), "what was on its way has arrived")
	require.Equal(t, []Entry{{ID: "9-1", Prev: "9-0", At: time.UnixMilli(99), Ops: []Op{
		{Kind: OpTake, ID: "0>1#9", Items: []Item{{"tea", 2}}, Reason: "0-0"},
	}}}, parts[1].r.added)
	require.EqualValues(t, 9+jump, parts[0].numbers[1], "newer than any")
	require.EqualValues(t, 7+jump, parts[1].numbers[0])

	parts = twoParts(nil, []Op{tea(OpTake, "0>1#8", 1)})
	twice, err = merge(parts)
	require.NoError(t, err)
	require.Empty(t, twice)
	require.Equal(t, [2]int64{9, 11}, left(parts), "who gave it has it no more")
	require.Equal(t, OpGive, parts[0].r.added[0].Ops[0].Kind)

	parts = twoParts([]Op{{Kind: OpDeduct, ID: "o", User: "u", Items: []Item{{"tea", 10}}}}, []Op{tea(OpTake, "0>1#8", 1)})
	twice, err = merge(parts)
	require.NoError(t, err)
	require.Equal(t, []Op{tea(OpTake, "0>1#8", 1)}, twice, "nobody has it to give")

	for _, bad := range []Op{tea(OpGive, "0>2#1", 1), tea(OpTake, "3>0#1", 1), {Kind: OpGive, ID: "0>1#1", Items: []Item{{"cup", 1}}}} {
		_, err = merge(twoParts([]Op{bad}, nil))
		require.ErrorIs(t, err, ErrInvalid, "%+v", bad)
	}
}

// A take is judged after its give, wherever that stands, and one whose give was lost is
// not kept, nor what lived on it.
func TestMergeFollowsTransfers(t *testing.T) {
	entry := func(ops ...Op) Entry { return Entry{ID: "1-0", At: time.UnixMilli(5), Ops: ops} }
	move := func(kind OpKind, id string) Op { return Op{Kind: kind, ID: id, Items: []Item{{"tea", 5}}} }
	sold := func(id string) Op { return Op{Kind: OpDeduct, ID: id, User: "u", Items: []Item{{"tea", 15}}} }

	parts := twoParts(nil, nil)
	parts[0].todo = []Entry{entry(move(OpTake, "1>0#1"), sold("a"))}
	parts[1].todo = []Entry{entry(move(OpGive, "1>0#1"))}
	lost, err := merge(parts)
	require.NoError(t, err)
	require.Empty(t, lost)
	require.Equal(t, "9-0", parts[0].r.takes["1>0#1"].after, "where the give stands now")
	require.Len(t, parts[0].r.added, 1, "together, as they happened")

	parts = twoParts(nil, nil)
	parts[0].todo = []Entry{entry(move(OpTake, "1>0#1"), sold("a"))}
	lost, err = merge(parts)
	require.NoError(t, err)
	require.Equal(t, []Op{sold("a")}, lost)
	require.EqualValues(t, 10, parts[0].r.levels["tea"].Left)

	// Takes that wait for each other are none that happened; nothing is lost all the same.
	parts = twoParts(nil, nil)
	parts[0].todo = []Entry{entry(move(OpTake, "1>0#1")), entry(move(OpGive, "0>1#1"))}
	parts[1].todo = []Entry{entry(move(OpTake, "0>1#1")), entry(move(OpGive, "1>0#1"))}
	_, err = merge(parts)
	require.NoError(t, err)
	require.EqualValues(t, 20, parts[0].r.levels["tea"].Left+parts[1].r.levels["tea"].Left)
	require.Len(t, parts[0].r.takes, 1)
	require.Len(t, parts[1].r.takes, 1)
}
