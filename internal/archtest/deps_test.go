package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const (
	goSync    = "golang.org/x/sync"
	ristretto = "github.com/dgraph-io/ristretto/v2"
	bloom     = "github.com/bits-and-blooms/bloom/v3"
	xxhash    = "github.com/cespare/xxhash/v2"
)

// mayUse holds, for every family of packages (cache and what lies under it),
// the modules that its users get.
var mayUse = map[string][]string{
	"hashring":   {xxhash},
	"shorturl":   {xxhash},
	"lock":       {xxhash, goRedis, goSync},
	"stock":      {xxhash, goRedis, goSync},
	"delayqueue": {xxhash, goRedis, goSync},
	"ratelimit":  {xxhash, goRedis, goSync},
	"counter":    {xxhash, goRedis, goSync},
	"idgen":      {xxhash, goRedis, goSync},
	"cache":      {xxhash, goRedis, goSync, ristretto, bloom},
}

// brings holds what a module brings with it, so that an upgrade that brings
// more is seen.
var brings = map[string][]string{
	goRedis:   {xxhash, "go.uber.org/atomic", "golang.org/x/sys"},
	ristretto: {xxhash, "github.com/dustin/go-humanize", "golang.org/x/sys"},
	bloom:     {"github.com/bits-and-blooms/bitset"},
}

func family(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// deps returns the import paths that the non-test files of dir lead to through
// this module's own packages, each with one chain that leads to it.
func (t *tree) deps(dir string) map[string]string {
	seen := map[string]string{}
	var walk func(dir, chain string)
	walk = func(dir, chain string) {
		for _, f := range t.files {
			if f.dir != dir || f.test {
				continue
			}
			for _, p := range f.paths {
				if _, ok := seen[p]; ok {
					continue
				}
				seen[p] = chain + " → " + p
				if own, ok := strings.CutPrefix(p, t.module+"/"); ok {
					walk(own, chain+" → "+own)
				}
			}
		}
	}
	walk(dir, dir)
	return seen
}

// Each of the nine is usable alone, and nothing that is for tests or examples
// reaches a user's program.
var ownImports = rule{
	name: "own imports",
	judge: func(t *tree) (bad []string) {
		for _, dir := range libraryDirs(t) {
			for p, chain := range t.deps(dir) {
				own, ok := strings.CutPrefix(p, t.module+"/")
				if !ok {
					continue
				}
				switch k := t.kind(own); {
				case k == harness || k == example:
					bad = append(bad, chain+": that is for tests and examples only")
				case k == public && t.kind(dir) == private:
					bad = append(bad, chain+": internal code knows no public package; declare a small interface")
				case k == public && family(own) != family(dir):
					bad = append(bad, chain+": no package of the nine imports another; declare a small interface and let the examples wire it")
				}
			}
		}
		return bad
	},
	broken: []control{
		{"directly", map[string]string{"stock/a.go": "package stock\nimport _ \"example.com/house/lock\"\n"}, "stock → example.com/house/lock"},
		{"through internal", map[string]string{
			"stock/a.go":          "package stock\nimport _ \"example.com/house/internal/mid\"\n",
			"internal/mid/mid.go": "package mid\nimport _ \"example.com/house/lock\"\n",
		}, "stock → internal/mid → example.com/house/lock"},
		{"the harness", map[string]string{
			"stock/a.go":                  "package stock\nimport _ \"example.com/house/internal/redistest\"\n",
			"internal/redistest/redis.go": "package redistest\n",
		}, "for tests and examples only"},
	},
}

// libraryDirs returns the directories of the packages that reach users.
func libraryDirs(t *tree) []string {
	dirs := map[string]bool{}
	for _, f := range t.library() {
		dirs[f.dir] = true
	}
	return slices.Sorted(maps.Keys(dirs))
}

// allowed returns the modules that the packages of dir may lead to, without
// what those bring.
func allowed(t *tree, dir string) ([]string, bool) {
	if t.kind(dir) == private {
		return []string{xxhash, goRedis, goSync, ristretto, bloom}, true
	}
	mods, ok := mayUse[family(dir)]
	return mods, ok
}

// A user of one package gets that package's dependencies and no others.
var moduleImports = rule{
	name: "imported modules",
	judge: func(t *tree) (bad []string) {
		for _, dir := range libraryDirs(t) {
			mods, ok := allowed(t, dir)
			if !ok {
				bad = append(bad, dir+": a new public package: say in mayUse what its users get")
				continue
			}
			for p, chain := range t.deps(dir) {
				first, _, _ := strings.Cut(p, "/")
				if own := under(p, t.module); own || !strings.Contains(first, ".") {
					continue
				}
				if !slices.ContainsFunc(mods, func(m string) bool { return under(p, m) }) {
					bad = append(bad, fmt.Sprintf("%s: %s may lead to the standard library and %s only", chain, dir, strings.Join(mods, ", ")))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"directly", map[string]string{"lock/a.go": "package lock\nimport _ \"" + bloom + "\"\n"}, "lock → " + bloom},
		{"through internal", map[string]string{"hashring/a.go": "package hashring\nimport _ \"example.com/house/internal/script\"\n"},
			"hashring → internal/script → " + goRedis},
		{"unknown package", map[string]string{"tenth/a.go": "package tenth\n"}, "tenth: a new public package"},
	},
}

// drivers are the SQL drivers: who imports a package whose tests import one
// gets all its modules in go.sum.
var drivers = []string{"modernc.org/sqlite", "github.com/go-sql-driver/mysql", "github.com/jackc/pgx", "github.com/lib/pq"}

var testDrivers = rule{
	name: "SQL drivers",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.files {
			if f.kind == example || f.kind == nested || under(f.dir, "internal/sqltest") || under(f.dir, "internal/chaos") {
				continue
			}
			for _, p := range f.paths {
				if slices.ContainsFunc(drivers, func(d string) bool { return under(p, d) }) {
					bad = append(bad, fmt.Sprintf("%s imports %s: also from a test it reaches every consumer's go.sum; test it in internal/sqltest", f.path, p))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"in a test", map[string]string{"lock/sql_test.go": "package lock\nimport _ \"modernc.org/sqlite\"\n"}, "lock/sql_test.go"},
		{"versioned", map[string]string{"lock/sql_test.go": "package lock\nimport _ \"github.com/jackc/pgx/v5\"\n"}, "pgx"},
	},
}

// The rule above sees what this module imports; the go command sees what that
// brings along. (Its answer depends on files that load opens, or on go.mod, and
// so the test cache knows when to ask again.)
func TestModulesBroughtAlong(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Deps,Module", "./...")
	cmd.Dir = path.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	listed := map[string]listedPackage{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		listed[p.ImportPath] = p
	}
	for _, finding := range broughtAlong(listed) {
		t.Error(finding)
	}
}

func TestModulesBroughtAlongIsCaught(t *testing.T) {
	house := &listedModule{Path: "example.com/house", Main: true}
	listed := map[string]listedPackage{
		"example.com/house/lock": {ImportPath: "example.com/house/lock", Module: house, Deps: []string{"fmt", goRedis, xxhash, "example.com/log"}},
		"fmt":                    {ImportPath: "fmt"},
		goRedis:                  {ImportPath: goRedis, Module: &listedModule{Path: goRedis}},
		xxhash:                   {ImportPath: xxhash, Module: &listedModule{Path: xxhash}},
		"example.com/log":        {ImportPath: "example.com/log", Module: &listedModule{Path: "example.com/log"}},
	}
	got := broughtAlong(listed)
	if len(got) != 1 || !strings.Contains(got[0], "lock leads to example.com/log") {
		t.Errorf("want one finding about example.com/log, got %q", got)
	}
}

type listedPackage struct {
	ImportPath string
	Deps       []string
	Module     *listedModule
}

type listedModule struct {
	Path string
	Main bool
}

func broughtAlong(listed map[string]listedPackage) (bad []string) {
	for _, p := range listed {
		if p.Module == nil || !p.Module.Main {
			continue
		}
		dir := strings.TrimPrefix(p.ImportPath, p.Module.Path+"/")
		mods, ok := mayUse[family(dir)]
		if !ok {
			continue // internal or an example, or moduleImports has complained
		}
		for _, d := range p.Deps {
			m := listed[d].Module
			if m == nil || m.Main || slices.Contains(mods, m.Path) {
				continue
			}
			if !slices.ContainsFunc(mods, func(by string) bool { return slices.Contains(brings[by], m.Path) }) {
				bad = append(bad, fmt.Sprintf("%s leads to %s: its users get a module more; find another way, or say so in mayUse or brings", dir, m.Path))
			}
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}
