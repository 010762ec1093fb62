package archtest

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	link     = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	testName = regexp.MustCompile(`\b(Test|Benchmark|Fuzz)[A-Z]\w*`)
)

// A link that leads nowhere is found by a reader, once he needs it.
var links = rule{
	name: "links",
	judge: func(t *tree) (bad []string) {
		for p, text := range t.docs {
			for i, line := range strings.Split(text, "\n") {
				for _, m := range link.FindAllStringSubmatch(line, -1) {
					if to := path.Join(path.Dir(p), m[1]); !strings.Contains(m[1], "://") && !t.paths[to] {
						bad = append(bad, fmt.Sprintf("%s:%d: links to %s, which is not there", p, i+1, to))
					}
				}
			}
		}
		return bad
	},
	broken: []control{
		{"a file that is gone", map[string]string{"docs/a.md": "# A\n\n[b](../lock/b.md#c)\n"}, "docs/a.md:3: links to lock/b.md"},
	},
}

// Where a text names the test that proves it, there is one.
var namedTests = rule{
	name: "named tests",
	judge: func(t *tree) (bad []string) {
		var have []string
		for _, f := range t.files {
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && f.test {
					have = append(have, fn.Name.Name)
				}
			}
		}
		judge := func(where, text string) {
			for _, name := range testName.FindAllString(text, -1) {
				if !slices.Contains(have, name) {
					bad = append(bad, fmt.Sprintf("%s names %s, and there is no such test", where, name))
				}
			}
		}
		for p, text := range t.docs {
			judge(p, text)
		}
		for _, f := range t.files {
			for _, c := range f.syntax.Comments {
				judge(f.path, c.Text())
			}
		}
		return bad
	},
	broken: []control{
		{"in Markdown", map[string]string{"README.md": "TestExpires shows it, and BenchmarkLock/spillway."}, "README.md names BenchmarkLock,"},
		{"in a comment", map[string]string{"lock/a.go": "// Package lock is held by TestGone.\npackage lock\n"}, "lock/a.go names TestGone,"},
	},
}
