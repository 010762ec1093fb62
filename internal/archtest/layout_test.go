package archtest

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A file is one idea.
var fileLength = rule{
	name: "file length",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.files {
			limit := 500
			if f.test {
				limit = 800
			}
			if f.lines > limit {
				bad = append(bad, fmt.Sprintf("%s has %d lines, more than %d: a file is one idea; split it by idea, not by size",
					f.path, f.lines, limit))
			}
		}
		return bad
	},
	broken: []control{
		{"long file", map[string]string{"lock/long.go": "package lock\n" + strings.Repeat("\n", 500)}, "lock/long.go has 501"},
		{"long test", map[string]string{"lock/long_test.go": "package lock\n" + strings.Repeat("\n", 800)}, "more than 800"},
	},
}

// A name that fits anything collects anything.
var fileNames = rule{
	name: "file names",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.files {
			name := strings.TrimSuffix(strings.TrimSuffix(path.Base(f.path), ".go"), "_test")
			for _, n := range []string{name, path.Base(f.dir), f.syntax.Name.Name} {
				if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "types"}, n) {
					bad = append(bad, fmt.Sprintf("%s: %q says nothing about what is inside; name it after its idea", f.path, n))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"types.go", map[string]string{"lock/types.go": "package lock\n"}, "lock/types.go"},
		{"helpers_test.go", map[string]string{"lock/helpers_test.go": "package lock\n"}, "helpers_test.go"},
		{"package utils", map[string]string{"internal/utils/a.go": "package utils\n"}, "internal/utils/a.go"},
	},
}

var leftover = regexp.MustCompile(`(?m)^\s*(//|/\*|--|\*)?\s*(TODO|FIXME|XXX|HACK)\b`)

// What is left for later is in nobody's way and never done.
var leftovers = rule{
	name: "leftovers",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.files {
			for _, g := range f.syntax.Comments {
				for _, c := range g.List {
					if m := leftover.FindString(c.Text); m != "" {
						bad = append(bad, t.at(c, "%q: do it now, or describe the limit as a limit", strings.TrimSpace(m)))
					}
				}
			}
		}
		for _, l := range t.lua {
			if m := leftover.FindString(l.text); m != "" {
				bad = append(bad, fmt.Sprintf("%s: %q: do it now, or describe the limit as a limit", l.path, strings.TrimSpace(m)))
			}
		}
		return bad
	},
	broken: []control{
		{"Go", map[string]string{"lock/a.go": "package lock\n\n// TODO: think\n"}, "lock/a.go:3"},
		{"Lua", map[string]string{"lock/a.lua": "-- FIXME later\n"}, "lock/a.lua"},
	},
}

// The go line of the root reaches every consumer; a workspace raises versions
// silently; a nested module must be about this checkout.
var goMod = rule{
	name: "go.mod files",
	judge: func(t *tree) (bad []string) {
		for p, text := range t.mods {
			if path.Base(p) == "go.work" {
				bad = append(bad, p+": no committed workspace: it raises the library's dependency versions silently; use replace in the nested module")
				continue
			}
			if m := regexp.MustCompile(`(?m)^go\s+(\S+)`).FindStringSubmatch(text); p == "go.mod" && (m == nil || !strings.HasSuffix(m[1], ".0")) {
				bad = append(bad, p+": write the go line by hand, as the first patch (1.N.0): it is the floor of every consumer")
			}
			if strings.Contains(text, "\ntoolchain ") {
				bad = append(bad, p+": delete the toolchain line: it reaches every consumer")
			}
			requires := regexp.MustCompile(`(?m)^\s*(require\s+)?` + regexp.QuoteMeta(t.module) + `\s+v`).MatchString(text)
			replaces := regexp.MustCompile(regexp.QuoteMeta(t.module) + `(\s+v\S+)?\s+=>\s+\.\.?/`).MatchString(text)
			if p != "go.mod" && requires && !replaces {
				bad = append(bad, fmt.Sprintf("%s: replace %s with a relative path: a nested module tests this checkout", p, t.module))
			}
		}
		return bad
	},
	broken: []control{
		{"workspace", map[string]string{"go.work": "go 1.26.0\n"}, "go.work"},
		{"patch version", map[string]string{"go.mod": "module example.com/house\n\ngo 1.26.8\n"}, "first patch"},
		{"toolchain", map[string]string{"go.mod": "module example.com/house\n\ngo 1.26.0\n\ntoolchain go1.26.8\n"}, "toolchain"},
		{"no replace", map[string]string{"bench/go.mod": "module x\n\ngo 1.26.0\n\nrequire example.com/house v0.0.0\n"}, "bench/go.mod: replace"},
	},
}
