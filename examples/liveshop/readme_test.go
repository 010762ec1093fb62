package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func readme(t *testing.T) string {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}

// What README says to type works as printed, but for the port.
func TestReadmeWalk(t *testing.T) {
	for _, program := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("REDIS_REQUIRED") == "1" { // the checks have everything
				t.Fatal(err)
			}
			t.Skipf("needs %s: %v", program, err)
		}
	}
	_, walk, ok := strings.Cut(readme(t), "```sh\nshop=")
	require.True(t, ok)
	walk, _, _ = strings.Cut("shop="+walk, "```")
	base := demonstrate(t)
	require.Contains(t, walk, "http://127.0.0.1:8080")
	walk = strings.ReplaceAll(walk, "http://127.0.0.1:8080", base)
	out, err := exec.Command("bash", "-euo", "pipefail", "-c", walk).CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	answers := regexp.MustCompile(`"code":"([a-z_]+)"`).FindAllStringSubmatch(string(out), -1)
	require.GreaterOrEqual(t, len(answers), strings.Count(walk, "\nsay "))
	for _, a := range answers {
		require.Equal(t, "ok", a[1])
	}
}

// The table of behaviours leads to files that are there.
func TestReadmeLinks(t *testing.T) {
	links := regexp.MustCompile(`\]\((internal/[^)]+)\)`).FindAllStringSubmatch(readme(t), -1)
	require.Greater(t, len(links), 20)
	for _, l := range links {
		require.True(t, exists(l[1]), l[1])
	}
	for _, l := range regexp.MustCompile(`\[([a-z]+\.go)\]\(([^)]+)\)`).FindAllStringSubmatch(readme(t), -1) {
		require.Equal(t, l[1], filepath.Base(l[2]))
	}
}

// Every command and flag of the program is in README.
func TestReadmeCommands(t *testing.T) {
	text := readme(t)
	for _, c := range commands[1:] {
		require.Contains(t, text, "`… "+c.name)
	}
	for _, name := range []string{"redis", "redis-cluster", "db", "addr", "server", "origins", "secret", "hold", "for", "n", "rate"} {
		require.Regexp(t, "-"+name+"\\b", text)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
