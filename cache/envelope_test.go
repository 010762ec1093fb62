package cache

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func envelope(flags byte, version string, fresh, soft, took time.Duration, value string) string {
	return sealHead(flags) + version + string(appendTail(nil, fresh, soft, took, strings.Repeat("t", tokenSize))) + value
}

func TestEnvelope(t *testing.T) {
	s := envelope(flagWritten, "0001700000000123", time.Hour, time.Minute, 1500*time.Microsecond, "value")
	h, b, err := unseal(s)
	require.NoError(t, err)
	require.Equal(t, header{flags: flagWritten, version: 1700000000123, fresh: time.Hour, soft: time.Minute, took: 1500 * time.Microsecond}, h)
	require.Equal(t, "value", string(b))
	for cut := range headerSize {
		_, _, err := unseal(s[:cut])
		require.Error(t, err, cut)
	}
	_, _, err = unseal("\x02" + s[1:])
	require.ErrorIs(t, err, errEnvelope, "another release's")
}

func FuzzUnseal(f *testing.F) {
	f.Add(envelope(0, "0001700000000123", time.Hour, 0, 0, "value"))
	f.Add("")
	f.Add("\x01")
	f.Fuzz(func(t *testing.T, s string) {
		h, b, err := unseal(s)
		if err == nil && (len(b) != len(s)-headerSize || h.fresh < 0 || h.soft < 0 || h.took < 0) {
			t.Errorf("%+v", h)
		}
	})
}

func FuzzCompress(f *testing.F) {
	f.Add([]byte("some value"), 4)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, v []byte, above int) {
		c := Compress[[]byte](nil, above)
		b, err := c.Append([]byte("head"), v)
		require.NoError(t, err)
		require.Equal(t, "head", string(b[:4]))
		require.LessOrEqual(t, len(b), 4+1+len(v))
		back, err := c.Decode(b[4:])
		require.NoError(t, err)
		require.Equal(t, string(v), string(back))
		_, _ = c.Decode(v) // whatever it is, no panic
	})
}

// Entries of another release, and what somebody else wrote, are misses that are
// overwritten; releases with different formats run side by side.
func TestUnreadableEntries(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		for name, raw := range map[string]string{
			"garbage":    "garbage",
			"newer":      "\x02" + envelope(0, "9001700000000123", time.Hour, 0, 0, `"newer"`)[1:],
			"not JSON":   envelope(0, "0001700000000123", 100*365*24*time.Hour, 0, 0, "{"),
			"no version": envelope(0, "not a version...", time.Hour, 0, 0, `"x"`),
		} {
			d := newDB("1", "ann")
			c := openSource(t, rdb, Source[string, string]{Load: d.load, Codec: JSON[string]()}, Options{Local: -1})
			k, _ := c.remote.keys("1")
			require.NoError(t, rdb.Set(ctx, k, raw, 0).Err())
			for range 3 {
				v, err := c.Get(ctx, "1")
				require.NoError(t, err, name)
				require.Equal(t, "ann", v)
			}
			require.EqualValues(t, 1, d.loads.Load(), name)
			require.EqualValues(t, 1, c.Stats().Undecodable, name)
		}
	})
}

func TestOwnBytes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		prefix := redistest.Prefix(t)
		src := Source[int, []byte]{Load: func(context.Context, int) ([]byte, error) { return nil, ErrNotFound }}
		a := openSource(t, rdb, src, Options{Prefix: prefix})
		b := openSource(t, rdb, src, Options{Prefix: prefix})
		require.NoError(t, a.Set(ctx, 7, []byte("\x00raw")))
		k, _ := a.remote.keys("7")
		raw, err := rdb.Get(ctx, k).Result()
		require.NoError(t, err)
		require.Equal(t, "\x00raw", raw[headerSize:])
		v, err := b.Get(ctx, 7)
		require.NoError(t, err)
		require.Equal(t, "\x00raw", string(v))
		require.Equal(t, len(v), cap(v), "appending to it changes nobody's memory")
	})
}
