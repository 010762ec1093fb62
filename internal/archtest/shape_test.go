package archtest

import (
	"go/ast"
	"go/token"
	"strings"
)

// params returns the type of each parameter, one for each name.
func params(list *ast.FieldList) []ast.Expr {
	var out []ast.Expr
	if list == nil {
		return nil
	}
	for _, f := range list.List {
		for range max(1, len(f.Names)) {
			out = append(out, f.Type)
		}
	}
	return out
}

func (f *file) isContext(e ast.Expr) bool {
	pkg, name := f.selector(e)
	return pkg == "context" && name == "Context"
}

func isIdent(e ast.Expr, name string) bool {
	if ix, ok := e.(*ast.IndexExpr); ok { // Options[K]
		e = ix.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// exportedFuncs visits the exported functions and methods of public packages.
func (t *tree) exportedFuncs(visit func(*file, *ast.FuncDecl)) {
	for _, files := range t.public() {
		for _, f := range files {
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.IsExported() && (fn.Recv == nil || ast.IsExported(receiver(fn))) {
					visit(f, fn)
				}
			}
		}
	}
}

// New(required…, opts Options) (*T, error), with at most three required.
var constructors = rule{
	name: "constructors",
	judge: func(t *tree) (bad []string) {
		t.exportedFuncs(func(f *file, fn *ast.FuncDecl) {
			in, out := params(fn.Type.Params), params(fn.Type.Results)
			for i, p := range in {
				if e, ok := p.(*ast.Ellipsis); ok && functionalOption(e.Elt) {
					bad = append(bad, t.at(fn, "%s takes functional options: take Options by value as the last argument", fn.Name.Name))
				}
				if star, ok := p.(*ast.StarExpr); ok && isIdent(star.X, "Options") {
					bad = append(bad, t.at(fn, "%s takes *Options: take it by value; its zero value is the default", fn.Name.Name))
				}
				if isIdent(p, "Options") && i != len(in)-1 {
					bad = append(bad, t.at(fn, "%s: Options is the last argument", fn.Name.Name))
				}
			}
			if len(out) > 0 && functionalOption(out[0]) {
				bad = append(bad, t.at(fn, "%s is a functional option: make it a field of Options", fn.Name.Name))
			}
			if fn.Recv != nil || len(in) == 0 || !strings.HasPrefix(fn.Name.Name, "New") || !isIdent(in[len(in)-1], "Options") {
				return
			}
			if len(in) > 4 {
				bad = append(bad, t.at(fn, "%s takes %d required arguments, more than three: what has a default belongs into Options", fn.Name.Name, len(in)-1))
			}
			if len(out) == 0 || !isIdent(out[len(out)-1], "error") {
				bad = append(bad, t.at(fn, "%s returns no error: an invalid option is an error that names field and value", fn.Name.Name))
			}
		})
		return bad
	},
	broken: []control{
		{"variadic", newIs("func New(opts ...Option) (*Locker, error) { return nil, nil }"), "takes functional options"},
		{"WithX", newIs("func WithTTL(d int) Option { return nil }"), "WithTTL is a functional option"},
		{"pointer", newIs("func New(opts *Options) (*Locker, error) { return nil, nil }"), "by value"},
		{"not last", newIs("func New(opts Options, n int) (*Locker, error) { return nil, nil }"), "last argument"},
		{"positional soup", newIs("func New(a, b, c, d int, opts Options) (*Locker, error) { return nil, nil }"), "4 required"},
		{"no error", newIs("func New(opts Options) *Locker { return nil }"), "no error"},
	},
}

func newIs(decl string) map[string]string {
	return map[string]string{"lock/new.go": "package lock\n\n" + decl + "\n"}
}

func functionalOption(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && (id.Name == "Option" || strings.HasSuffix(id.Name, "Option"))
}

// The same word and the same shape for the same thing in all nine.
var signatures = rule{
	name: "signatures",
	judge: func(t *tree) (bad []string) {
		byPackage := map[string]map[string]bool{}
		t.exportedFuncs(func(f *file, fn *ast.FuncDecl) {
			name := fn.Name.Name
			in, out := params(fn.Type.Params), params(fn.Type.Results)
			ctxFirst := len(in) > 0 && f.isContext(in[0])
			for i, p := range in {
				if i > 0 && f.isContext(p) {
					bad = append(bad, t.at(fn, "%s: ctx is the first argument", name))
				}
			}
			onlyError := len(out) == 1 && isIdent(out[0], "error")
			if fn.Recv != nil {
				switch {
				case name == "Close" && (len(in) != 1 || !ctxFirst || !onlyError):
					bad = append(bad, t.at(fn, "Close has the shape Close(ctx context.Context) error"))
				case (name == "Run" || strings.HasPrefix(name, "Run") && token.IsExported(name[3:])) && (!ctxFirst || !onlyError):
					bad = append(bad, t.at(fn, "%s: Run… blocks, takes ctx first and returns error", name))
				case name == "Inspect" && !ctxFirst:
					bad = append(bad, t.at(fn, "Inspect asks the server: it takes ctx"))
				case name == "Stats" && (len(in) != 0 || len(out) != 1):
					bad = append(bad, t.at(fn, "Stats has the shape Stats() Stats, and does no I/O"))
				}
			}
			scope := f.dir
			if fn.Recv != nil {
				scope += "." + receiver(fn)
			}
			if byPackage[scope] == nil {
				byPackage[scope] = map[string]bool{}
			}
			byPackage[scope][name] = true
		})
		t.exportedFuncs(func(f *file, fn *ast.FuncDecl) {
			scope := f.dir
			if fn.Recv != nil {
				scope += "." + receiver(fn)
			}
			for _, suffix := range []string{"Ctx", "Context", "WithContext"} {
				if base, ok := strings.CutSuffix(fn.Name.Name, suffix); ok && byPackage[scope][base] {
					bad = append(bad, t.at(fn, "%s and %s are twins: keep one, and let it take ctx", base, fn.Name.Name))
				}
			}
		})
		return bad
	},
	broken: []control{
		{"ctx second", shapeIs("func (l *Locker) A(n int, ctx context.Context) {}"), "ctx is the first"},
		{"io.Closer", shapeIs("func (l *Locker) Close() error { return nil }"), "Close has the shape"},
		{"Run", shapeIs("func (l *Locker) RunLoop() {}"), "RunLoop: Run… blocks"},
		{"Inspect", shapeIs("func (l *Locker) Inspect() int { return 0 }"), "Inspect asks"},
		{"Stats", shapeIs("func (l *Locker) Stats(ctx context.Context) int { return 0 }"), "Stats has the shape"},
		{"twins", shapeIs("func (l *Locker) AcquireCtx(ctx context.Context) {}"), "twins"},
	},
}

func shapeIs(decl string) map[string]string {
	return map[string]string{"lock/shape.go": "package lock\n\nimport \"context\"\n\nvar _ context.Context\n\n" + decl + "\n"}
}

// An exported struct that embeds a type has all that type's methods for ever,
// and a clock in the API is there for the tests' sake only.
var noLeaks = rule{
	name: "embedding and clocks",
	judge: func(t *tree) (bad []string) {
		for _, files := range t.public() {
			for _, f := range files {
				for _, d := range f.syntax.Decls {
					gen, ok := d.(*ast.GenDecl)
					if !ok || gen.Tok != token.TYPE {
						continue
					}
					for _, spec := range gen.Specs {
						ts := spec.(*ast.TypeSpec)
						if !ts.Name.IsExported() {
							continue
						}
						var fields []*ast.Field
						switch x := ts.Type.(type) {
						case *ast.StructType:
							fields = x.Fields.List
						case *ast.InterfaceType:
							fields = x.Methods.List
						}
						_, isStruct := ts.Type.(*ast.StructType)
						for _, field := range fields {
							if isStruct && len(field.Names) == 0 && hasMethods(files, field.Type) {
								bad = append(bad, t.at(field, "%s embeds a type and so exports its methods: give the field a name", ts.Name.Name))
							}
							if len(field.Names) > 0 && (isStruct || field.Names[0].Name == "Now") && f.givesTime(field.Type) && field.Names[0].IsExported() {
								bad = append(bad, t.at(field, "%s.%s is a clock: tests use testing/synctest, scripts use Redis TIME", ts.Name.Name, field.Names[0].Name))
							}
						}
					}
				}
			}
		}
		return bad
	},
	broken: []control{
		{"mutex", shapeIs("// T is.\ntype T struct{ sync.Mutex }"), "T embeds a type"},
		{"client", shapeIs("// T is.\ntype T struct{ *redis.Client }"), "T embeds a type"},
		{"own type", shapeIs("// T is.\ntype T struct{ Locker }"), "T embeds a type"},
		{"func", map[string]string{"lock/c.go": "package lock\nimport \"time\"\ntype T struct{ Clock func() time.Time }\n"}, "T.Clock is a clock"},
		{"interface", map[string]string{"lock/c.go": "package lock\nimport \"time\"\ntype Clock interface{ Now() time.Time }\n"}, "Clock.Now is a clock"},
	},
}

// hasMethods reports whether e is a type of another package, or one of files'
// own with methods.
func hasMethods(files []*file, e ast.Expr) bool {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	id, ok := e.(*ast.Ident)
	if !ok || id.Name == "error" {
		return true
	}
	for _, f := range files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && receiver(fn) == id.Name {
				return true
			}
		}
	}
	return false
}

// givesTime reports whether e is func() time.Time.
func (f *file) givesTime(e ast.Expr) bool {
	fn, ok := e.(*ast.FuncType)
	if !ok || len(params(fn.Params)) != 0 {
		return false
	}
	out := params(fn.Results)
	if len(out) != 1 {
		return false
	}
	pkg, name := f.selector(out[0])
	return pkg == "time" && name == "Time"
}
