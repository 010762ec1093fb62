package ratelimit

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

var aclRow = regexp.MustCompile(`Commands, for an ACL: ([A-Z, ]+), and inside scripts ([A-Z, ]+)\.`)

// The commands that doc.go lists for an ACL are enough, on keys of the prefix.
func TestACL(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	m := aclRow.FindSubmatch(doc)
	require.NotNil(t, m)
	rules := []any{"ACL", "SETUSER", "limited", "on", ">secret", "~spillway:ratelimit1:*"}
	for name := range strings.SplitSeq(string(m[1])+", "+string(m[2]), ", ") {
		rules = append(rules, "+"+strings.ToLower(name))
	}
	server := redistest.Server(t)
	require.NoError(t, server.Client().Do(t.Context(), rules...).Err())
	rdb := server.Client(func(o *redis.Options) { o.Username, o.Password = "limited", "secret" })
	require.Error(t, rdb.Ping(t.Context()).Err(), "the server does not look at the list")

	l, err := New(rdb, []Limit{PerHour(10)}, Options{Timeout: 20 * time.Second, Lease: time.Second})
	require.NoError(t, err)
	for range 12 {
		_, err := l.Allow(t.Context(), "k")
		require.NoError(t, err)
	}
	require.NoError(t, l.Reset(t.Context(), "k"))
	turn, err := l.Reserve(t.Context(), "k", 1)
	require.NoError(t, err)
	require.True(t, turn.OK())
	require.NoError(t, turn.Cancel(t.Context()))
	require.NoError(t, l.Close(t.Context()))
	require.Zero(t, l.Stats().WhenDown)
}
