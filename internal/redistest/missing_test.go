package redistest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// missingEnv, in the environment of this test binary, makes TestMissing run.
const missingEnv = "REDISTEST_MISSING"

func TestAMissingServerSkipsOrFails(t *testing.T) {
	run := func(required string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMissing$", "-test.v")
		cmd.Env = append(os.Environ(), missingEnv+"=1", "PATH=", "REDIS_REQUIRED="+required)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	needing := []string{"Each/server", "Each/cluster", "Server", "Shared", "Cluster", "Sentinel"}

	out, err := run("")
	require.NoError(t, err, out)
	require.Contains(t, out, "--- PASS: TestMissing/Each/miniredis")
	require.Contains(t, out, "REDIS_REQUIRED=1", "the reason is not printed")
	for _, name := range needing {
		require.Contains(t, out, "--- SKIP: TestMissing/"+name+" ")
	}

	out, err = run("1")
	require.Error(t, err)
	require.Contains(t, out, "--- PASS: TestMissing/Each/miniredis")
	for _, name := range needing {
		require.Contains(t, out, "--- FAIL: TestMissing/"+name+" ")
	}
}

func TestMissing(t *testing.T) {
	if os.Getenv(missingEnv) == "" {
		t.Skip("a part of TestAMissingServerSkipsOrFails")
	}
	t.Run("Each", func(t *testing.T) {
		Each(t, func(t *testing.T, rdb redis.UniversalClient) {
			require.NoError(t, rdb.Ping(t.Context()).Err())
		})
	})
	t.Run("Server", func(t *testing.T) { Server(t) })
	t.Run("Shared", func(t *testing.T) { Shared(t) })
	t.Run("Cluster", func(t *testing.T) { Cluster(t, 3, 1) })
	t.Run("Sentinel", func(t *testing.T) { Sentinel(t) })
}
