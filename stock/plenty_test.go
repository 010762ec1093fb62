package stock

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// settle.lua only writes down a batch of new orders for which there is plenty. It
// must do what the decision order by order does, which a limit that nobody reaches
// switches on.
func TestPlentyIsAsOneByOne(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		for round := range 20 {
			opts := Options{}
			if round%5 == 4 {
				opts.ClosesAt = time.Now().Add(-time.Hour)
			}
			plenty := open(t, rdb, opts)
			opts.UserLimit = maxQty
			general := open(t, rdb, opts)
			load := map[string]int64{"tea": 20 + rng.Int64N(60), "cup": 20 + rng.Int64N(60)}
			require.NoError(t, plenty.Load(t.Context(), load))
			require.NoError(t, general.Load(t.Context(), load))
			for step := range 6 {
				batch := randomBatch(rng, step)
				nonce := fmt.Sprintf("%d.n", step)
				got, err := plenty.settle(t.Context(), batch, nonce, 0)
				require.NoError(t, err)
				want, err := general.settle(t.Context(), batch, nonce, 0)
				require.NoError(t, err)
				require.Equal(t, verdicts(want), verdicts(got))
				require.Equal(t, contents(t, rdb, general), contents(t, rdb, plenty))
			}
			require.NoError(t, plenty.Drop(t.Context()))
			require.NoError(t, general.Drop(t.Context()))
		}
	})
}

// randomBatch has up to 12 orders: mostly new ids, sometimes the same id twice, a
// repeated one, or a SKU that is not there.
func randomBatch(rng *rand.Rand, step int) []*op {
	batch := make([]*op, 1+rng.IntN(12))
	for i := range batch {
		id := fmt.Sprintf("o%d-%d", step, i)
		if rng.IntN(40) == 0 {
			id = fmt.Sprintf("o%d-%d", rng.IntN(step+1), rng.IntN(12))
		}
		items := []Item{{"tea", 1 + rng.Int64N(3)}}
		switch rng.IntN(20) {
		case 0:
			items[0].SKU = "sugar"
		case 1, 2, 3, 4, 5:
			items = append(items, Item{"cup", 1 + rng.Int64N(3)})
		}
		batch[i] = newOp("DR"[rng.IntN(2)], ':', id, "u", items)
	}
	return batch
}

func verdicts(outs []outcome) (texts []string) {
	for _, o := range outs {
		if o.code == codeInsufficient {
			o.b = 0 // the version, which is a time
		}
		texts = append(texts, fmt.Sprint(o.code, o.sku, o.a, o.b, o.err, timeless(o.record)))
	}
	return texts
}

var due = regexp.MustCompile(`^R\d+`)

func timeless(record string) string { return due.ReplaceAllString(record, "R") }

var crossing = regexp.MustCompile(`(V\d+:[a-z]+)\d+ `)

// contents is all that Redis has of a but limits and times.
func contents(t *testing.T, rdb redis.UniversalClient, a *Activity) (texts []string) {
	t.Helper()
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	for _, sku := range []string{"tea", "cup"} {
		texts = append(texts, fmt.Sprint(sku, levels[sku].Left, levels[sku].Reserved, levels[sku].Sold))
	}
	records := map[string]string{}
	for _, key := range []string{a.keys.holds, a.keys.orders + ":0"} {
		all, err := rdb.HGetAll(t.Context(), key).Result()
		require.NoError(t, err)
		for field, record := range all {
			records[field] = timeless(record)
		}
	}
	texts = append(texts, fmt.Sprint(records)) // a map is printed in order
	entries, err := rdb.XRange(t.Context(), a.keys.stream, "-", "+").Result()
	require.NoError(t, err)
	for _, e := range entries {
		texts = append(texts, fmt.Sprint(e.Values["h"], crossing.ReplaceAllString(fmt.Sprint(e.Values["o"]), "$1 ")))
	}
	meta, err := rdb.HGet(t.Context(), a.keys.levels, "@").Result()
	require.NoError(t, err)
	var skip, open string
	_, err = fmt.Sscan(meta, &skip, &skip, &skip, &skip, &open)
	require.NoError(t, err)
	return append(texts, "open "+open)
}
