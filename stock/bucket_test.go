package stock

import (
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// eachBucketed runs f everywhere, on a cluster of three masters too, with a loaded
// activity of three buckets.
func eachBucketed(t *testing.T, opts Options, stock map[string]int64, f func(t *testing.T, a *Activity)) {
	if opts.Buckets == 0 {
		opts.Buckets = 3
	}
	run := func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, opts)
		if stock != nil {
			require.NoError(t, a.Load(t.Context(), stock))
		}
		f(t, a)
	}
	redistest.Each(t, run)
	t.Run("cluster of three", func(t *testing.T) { run(t, redistest.Cluster(t, 3, 0).Client()) })
}

// userOf returns a user whose home is that bucket.
func userOf(a *Activity, bucket int) string {
	for i := 0; ; i++ {
		if u := fmt.Sprintf("user-%d", i); a.home(u).bucket == bucket {
			return u
		}
	}
}

// The last unit sells, wherever it is and whoever asks, and not one more.
func TestBucketsSellTheLastUnit(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1}, map[string]int64{"tea": 100, "cup": 1}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		u := userOf(a, 2)
		for i := range 50 {
			_, err := a.Deduct(ctx, tea(fmt.Sprint("o", i), u, 2))
			require.NoError(t, err, i)
		}
		requireTea(t, a, 0, 0, 100)
		for bucket := range 3 {
			_, err := a.Deduct(ctx, tea("more", userOf(a, bucket), 1))
			require.ErrorIs(t, err, ErrInsufficient)
		}
		var wg sync.WaitGroup
		sold := make([]error, 12)
		for i := range sold {
			wg.Go(func() {
				_, sold[i] = a.Deduct(ctx, Order{ID: fmt.Sprint("c", i), User: userOf(a, i%3), Items: []Item{{"cup", 1}}})
			})
		}
		wg.Wait()
		n := 0
		for _, err := range sold {
			if err == nil {
				n++
			} else {
				require.ErrorIs(t, err, ErrInsufficient)
			}
		}
		require.Equal(t, 1, n)
	})
}
