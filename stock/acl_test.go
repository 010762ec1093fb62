package stock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	t.Parallel()
	_, rdb := redistest.Limited(t)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	for _, opts := range []Options{{}, {Buckets: 2}} {
		opts.UserLimit, opts.EligibleOnly, opts.Linger, opts.WaitReplicas = 100, true, time.Millisecond, 1
		a := open(t, rdb, opts)
		must(nil, a.Load(ctx, map[string]int64{"tea": 20, "cup": 1}))
		must(nil, a.Allow(ctx, "u", "v"))
		stop := start(t, a.Run)
		sink := newShelf()
		if opts.Buckets == 0 {
			shelve(t, a, sink)
		}
		for _, user := range []string{"u", "v"} { // all that there is, so that stock has to move
			must(a.Deduct(ctx, tea("deducted by "+user, user, 5)))
			must(a.Reserve(ctx, tea("reserved by "+user, user, 5)))
			must(a.Lookup(ctx, Ref{"deducted by " + user, user}))
		}
		must(a.Confirm(ctx, Ref{"reserved by u", "u"}))
		must(a.Cancel(ctx, Ref{"reserved by v", "v"}, "no money"))
		must(a.Restock(ctx, "r", Item{"tea", 1}))
		must(a.Stock(ctx))
		must(a.Inspect(ctx))
		for _, err := range a.Entries(ctx, "") {
			require.NoError(t, err)
		}
		for _, err := range a.Holds(ctx) {
			require.NoError(t, err)
		}
		if opts.Buckets == 0 {
			shelve(t, a, sink)
			must(a.Reconcile(ctx, sink))
			must(a.Rebuild(ctx, sink))
			must(nil, a.RemoveSink(ctx, sink.Name()))
		}
		must(nil, a.Halt(ctx, "why"))
		must(nil, a.Resume(ctx))
		stop()
		must(nil, a.Drop(ctx))
	}
}
