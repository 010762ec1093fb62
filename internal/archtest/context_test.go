package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

// A context without a caller is a goroutine that nobody ends.
var contextOrigin = rule{
	name: "where contexts begin",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.library() {
			if f.dir == "internal/lifetime" {
				continue
			}
			calls(f.syntax, func(call *ast.CallExpr) {
				if pkg, name := f.callee(call); pkg == "context" && (name == "Background" || name == "TODO") {
					bad = append(bad, t.at(call, "context.%s: take the caller's ctx, or one from internal/lifetime", name))
				}
			})
		}
		return bad
	},
	broken: []control{
		{"public", map[string]string{"lock/a.go": "package lock\nimport \"context\"\nvar c = context.Background()\n"}, "lock/a.go:3: context.Background"},
		{"internal, renamed", map[string]string{"internal/script/a.go": "package script\nimport c \"context\"\nvar x = c.TODO()\n"}, "context.TODO"},
	},
}

// mayStoreContext holds the structs that may keep a context: one of their own,
// that they themselves end.
var mayStoreContext = []string{
	"internal/lifetime.Group",
	"internal/coalesce.flight", // of its own: serves flight after flight until one is abandoned
}

// A stored context is cancelled for a caller who is long gone, or never.
var contextStored = rule{
	name: "stored contexts",
	judge: func(t *tree) (bad []string) {
		stale := slices.DeleteFunc(slices.Clone(mayStoreContext), func(s string) bool {
			return !slices.Contains(libraryDirs(t), strings.TrimSuffix(s, path.Ext(s)))
		})
		for _, f := range t.library() {
			typeName := ""
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				if ts, ok := n.(*ast.TypeSpec); ok {
					typeName = ts.Name.Name
				}
				st, ok := n.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range st.Fields.List {
					where := f.dir + "." + typeName
					if !f.isContext(field.Type) {
						continue
					}
					stale = slices.DeleteFunc(stale, func(s string) bool { return s == where })
					if !slices.Contains(mayStoreContext, where) {
						bad = append(bad, t.at(field, "%s stores a ctx: pass it as the first argument, keep ctx.Done() or what you need of it; if the context is its own, add it to mayStoreContext", where))
					}
				}
				return true
			})
		}
		for _, s := range stale {
			bad = append(bad, s+" stores no ctx any more: delete it from mayStoreContext")
		}
		return bad
	},
	broken: []control{
		{"stale", map[string]string{"internal/lifetime/lifetime.go": "package lifetime\n"}, "lifetime.Group stores no ctx any more"},
		{"field", map[string]string{"lock/a.go": "package lock\nimport \"context\"\ntype waiter struct{ ctx context.Context }\n"}, "lock.waiter stores a ctx"},
		{"embedded", map[string]string{"lock/a.go": "package lock\nimport \"context\"\ntype w struct{ context.Context }\n"}, "lock.w stores a ctx"},
	},
}

// A sleep does not hear its caller leave.
var sleepless = rule{
	name: "no sleep in the library",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.library() {
			calls(f.syntax, func(call *ast.CallExpr) {
				if pkg, name := f.callee(call); pkg == "time" && name == "Sleep" {
					bad = append(bad, t.at(call, "time.Sleep: select on a timer and ctx.Done()"))
				}
			})
		}
		return bad
	},
	broken: []control{
		{"sleep", map[string]string{"lock/a.go": "package lock\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"}, "lock/a.go:3: time.Sleep"},
	},
}

// Sleeping until another goroutine has surely done its part fails on a slow
// machine. In a synctest bubble time is virtual, and sleeping is exact.
//
// It guesses: a top-level Test, Fuzz or Benchmark function may sleep if it
// calls synctest, redistest.Bubble or a helper of that name itself, any other
// function if its file does. In a file called bench… a sleep stands for a round trip.
var testSleeps = rule{
	name: "no sleep in tests",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.files {
			if !f.test || f.kind == nested || strings.HasPrefix(path.Base(f.path), "bench") {
				continue
			}
			for _, d := range f.syntax.Decls {
				scope := ast.Node(f.syntax)
				if fn, ok := d.(*ast.FuncDecl); ok && isEntry(fn) {
					scope = fn
				}
				calls(d, func(call *ast.CallExpr) {
					if pkg, name := f.callee(call); pkg == "time" && name == "Sleep" && !f.bubbles(scope) {
						bad = append(bad, t.at(call, "time.Sleep outside a bubble: wait for what you wait for (a channel, a poll with a deadline), or run in synctest.Test or redistest.Bubble"))
					}
				})
			}
		}
		return bad
	},
	broken: []control{
		{"test", map[string]string{"lock/a_test.go": "package lock\nimport \"time\"\nfunc TestA(t *testing.T) { time.Sleep(1) }\n"}, "lock/a_test.go:3: time.Sleep"},
		{"helper", map[string]string{"lock/a_test.go": "package lock\nimport \"time\"\nfunc settle() { time.Sleep(1) }\n"}, "time.Sleep"},
		{"beside a bubble", map[string]string{"lock/a_test.go": "package lock\nimport (\n\"time\"\n\"testing/synctest\"\n)\n" +
			"func TestA(t *testing.T) { time.Sleep(1) }\nfunc TestB(t *testing.T) { synctest.Test(t, nil) }\n"}, "lock/a_test.go:6"},
	},
}

// isEntry reports whether the go command calls fn.
func isEntry(fn *ast.FuncDecl) bool {
	return fn.Recv == nil && slices.ContainsFunc([]string{"Test", "Fuzz", "Benchmark", "Example"}, func(prefix string) bool {
		return strings.HasPrefix(fn.Name.Name, prefix)
	})
}

func (f *file) bubbles(n ast.Node) bool {
	found := false
	calls(n, func(call *ast.CallExpr) {
		pkg, name := f.callee(call)
		if id, ok := call.Fun.(*ast.Ident); ok {
			name = id.Name
		}
		found = found || pkg == "testing/synctest" || strings.Contains(strings.ToLower(name), "bubble")
	})
	return found
}

// A test that is skipped without saying why is a test that is gone.
var skipReasons = rule{
	name: "skip reasons",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.files {
			if f.kind == example {
				continue
			}
			calls(f.syntax, func(call *ast.CallExpr) {
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return
				}
				x, ok := sel.X.(*ast.Ident)
				if !ok || !slices.Contains([]string{"t", "tb", "b", "f"}, x.Name) {
					return
				}
				empty := len(call.Args) == 0
				if !empty {
					text, ok := literal(call.Args[0])
					empty = ok && strings.TrimSpace(text) == ""
				}
				if sel.Sel.Name == "SkipNow" || empty && (sel.Sel.Name == "Skip" || sel.Sel.Name == "Skipf") {
					bad = append(bad, t.at(call, "%s.%s: say why with Skip(reason)", x.Name, sel.Sel.Name))
				}
			})
		}
		return bad
	},
	broken: []control{
		{"Skip", map[string]string{"lock/a_test.go": "package lock\nfunc TestA(t *testing.T) { t.Skip() }\n"}, "lock/a_test.go:2: t.Skip"},
		{"empty", map[string]string{"lock/a_test.go": "package lock\nfunc TestA(t *testing.T) { t.Skip(\" \") }\n"}, "t.Skip"},
		{"SkipNow", map[string]string{"lock/a_test.go": "package lock\nfunc BenchmarkA(b *testing.B) { b.SkipNow() }\n"}, "b.SkipNow"},
	},
}
