package cache

import (
	"context"
	"strconv"
	"testing"
)

// What a local hit costs, beside other packages in bench/.
func BenchmarkGetLocal(b *testing.B) {
	c, err := New(nil, "b", Source[string, string]{Load: func(_ context.Context, k string) (string, error) { return k, nil }}, Options{Local: 100_000})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(context.Background())
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = "user:" + strconv.Itoa(i)
		if _, err := c.Get(b.Context(), keys[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	ctx := b.Context()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Get(ctx, keys[i&1023]); err != nil {
			b.Fatal(err)
		}
	}
}
