package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// values visits the package-level variables of f that have a value.
func (f *file) values(visit func(name *ast.Ident, value ast.Expr)) {
	for _, d := range f.syntax.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			if vs := spec.(*ast.ValueSpec); len(vs.Names) == len(vs.Values) {
				for i, n := range vs.Names {
					visit(n, vs.Values[i])
				}
			}
		}
	}
}

// A caller handles the errors of all packages with the same code.
var commonErrors = rule{
	name: "common errors",
	judge: func(t *tree) (bad []string) {
		for dir, files := range t.public() {
			have := map[string]bool{}
			redis := false
			for _, f := range files {
				redis = redis || slices.Contains(f.paths, goRedis)
				f.values(func(name *ast.Ident, value ast.Expr) {
					have[name.Name] = true
					shared := name.Name == "ErrUnavailable" || name.Name == "ErrUnknown"
					pkg, _ := f.selector(value)
					if shared && !under(pkg, t.module+"/internal") {
						bad = append(bad, t.at(name, "%s is the same value in every package: take it from the internal package that defines it", name.Name))
					}
				})
			}
			for _, name := range []string{"ErrInvalid", "ErrClosed", "ErrUnavailable", "ErrUnknown"} {
				if redis && !have[name] {
					bad = append(bad, fmt.Sprintf("%s talks to Redis and does not export %s", dir, name))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"one missing", map[string]string{"stock/a.go": "package stock\nimport _ \"" + goRedis + "\"\nvar ErrInvalid, ErrClosed, ErrUnknown = script.A, script.B, script.C\n"},
			"stock talks to Redis and does not export ErrUnavailable"},
		{"a value of its own", map[string]string{"stock/a.go": "package stock\nimport \"errors\"\nvar ErrUnknown = errors.New(\"stock: unknown\")\n"},
			"stock/a.go:3: ErrUnknown is the same value"},
	},
}

// An error says whose it is.
var errorPrefix = rule{
	name: "error prefix",
	judge: func(t *tree) (bad []string) {
		for _, files := range t.public() {
			for _, f := range files {
				f.values(func(name *ast.Ident, value ast.Expr) {
					call, ok := value.(*ast.CallExpr)
					if !ok || !name.IsExported() || len(call.Args) == 0 {
						return
					}
					text, ok := literal(call.Args[0])
					if pkg, _ := f.callee(call); ok && (pkg == "errors" || pkg == "fmt") && !strings.HasPrefix(text, f.syntax.Name.Name+": ") {
						bad = append(bad, t.at(name, "%s: its text begins with %q", name.Name, f.syntax.Name.Name+": "))
					}
				})
			}
		}
		return bad
	},
	broken: []control{
		{"no prefix", map[string]string{"lock/a.go": "package lock\nimport \"errors\"\nvar ErrHeld = errors.New(\"held\")\n"}, `begins with "lock: "`},
	},
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// A cause that is printed with %v cannot be asked for with errors.Is.
//
// Without types an error is told by its name: err, …Err, Err…, ctx.Err(),
// context.Cause. errorlint, in .golangci.yml, knows the types.
var wrappedErrors = rule{
	name: "wrapped errors",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.library() {
			calls(f.syntax, func(call *ast.CallExpr) {
				if pkg, name := f.callee(call); pkg != "fmt" || name != "Errorf" || len(call.Args) < 2 {
					return
				}
				format, ok := literal(call.Args[0])
				if !ok {
					return
				}
				verbs := verb.FindAllString(strings.ReplaceAll(format, "%%", ""), -1)
				for i, arg := range call.Args[1:] {
					if i < len(verbs) && f.looksLikeError(arg) && !strings.HasSuffix(verbs[i], "w") && !strings.HasSuffix(verbs[i], "T") {
						bad = append(bad, t.at(arg, "an error printed with %s is cut out of the chain: use %%w", verbs[i]))
					}
				}
			})
		}
		return bad
	},
	broken: []control{
		{"%v", errorfIs(`fmt.Errorf("%q: %v", name, err)`), "lock/a.go:5: an error printed with %v"},
		{"after %w", errorfIs(`fmt.Errorf("%w: 5%% %s", ErrInvalid, dialErr)`), "printed with %s"},
		{"ctx.Err", errorfIs(`fmt.Errorf("gave up: %v", ctx.Err())`), "printed with %v"},
		{"text of it", errorfIs(`fmt.Errorf("gave up: %s", err.Error())`), "printed with %s"},
	},
}

func errorfIs(call string) map[string]string {
	return map[string]string{"lock/a.go": "package lock\n\nimport \"fmt\"\n\nvar e = " + call + "\n"}
}

var (
	verb      = regexp.MustCompile(`%[-+# 0]*[0-9*]*(\.[0-9*]+)?[a-zA-Z]`)
	errorName = regexp.MustCompile(`^err$|^err[A-Z0-9]|^Err([A-Z]|$)|[a-z]Err$`)
)

func (f *file) looksLikeError(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.Ident:
		return errorName.MatchString(x.Name)
	case *ast.SelectorExpr:
		return errorName.MatchString(x.Sel.Name)
	case *ast.CallExpr:
		if pkg, name := f.callee(x); pkg == "context" && name == "Cause" {
			return true
		}
		if sel, ok := x.Fun.(*ast.SelectorExpr); ok {
			return sel.Sel.Name == "Err" || sel.Sel.Name == "Error" && f.looksLikeError(sel.X)
		}
	}
	return false
}

// What a library has to say it returns; where background work may fail it says
// it to Options.Logger.
var silent = rule{
	name: "no output",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.library() {
			if slices.Contains(f.paths, "log") {
				bad = append(bad, f.path+": imports log: return the error, or give it to Options.Logger")
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				pkg, name := f.selector(e)
				if call, ok := n.(*ast.CallExpr); ok && (isIdent(call.Fun, "print") || isIdent(call.Fun, "println")) {
					pkg, name = "builtin", call.Fun.(*ast.Ident).Name
				}
				writes := pkg == "builtin" ||
					pkg == "fmt" && slices.Contains([]string{"Print", "Printf", "Println"}, name) ||
					pkg == "os" && (name == "Stdout" || name == "Stderr") ||
					pkg == "log/slog" && slices.Contains([]string{"Default", "Debug", "Info", "Warn", "Error", "Log",
						"DebugContext", "InfoContext", "WarnContext", "ErrorContext", "LogAttrs"}, name)
				if writes {
					bad = append(bad, t.at(n, "%s.%s: a library prints nothing: return the error, or give it to Options.Logger", path.Base(pkg), name))
				}
				return true
			})
		}
		return bad
	},
	broken: []control{
		{"log", map[string]string{"internal/script/a.go": "package script\nimport _ \"log\"\n"}, "imports log"},
		{"fmt", map[string]string{"lock/a.go": "package lock\nimport \"fmt\"\nfunc f() { fmt.Println() }\n"}, "fmt.Println"},
		{"stderr", map[string]string{"lock/a.go": "package lock\nimport \"os\"\nvar w = os.Stderr\n"}, "os.Stderr"},
		{"builtin", map[string]string{"lock/a.go": "package lock\nfunc f() { println() }\n"}, "builtin.println"},
		{"default logger", map[string]string{"lock/a.go": "package lock\nimport \"log/slog\"\nfunc f() { slog.Warn(\"x\") }\n"}, "slog.Warn"},
	},
}
