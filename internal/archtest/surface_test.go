package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
)

// An export is one exported name of a package.
type export struct {
	name  string // with the receiver's for a method: "Locker.Acquire"
	ident string // without
	tok   token.Token
	node  ast.Node
	doc   bool
	enum  string              // of a constant: its type
	types map[string]struct{} // the types that its signature or fields name
}

func (e export) isError() bool {
	return e.tok == token.VAR && strings.HasPrefix(e.ident, "Err") || e.tok == token.TYPE && strings.HasSuffix(e.ident, "Error")
}

func (e export) isMethod() bool { return e.name != e.ident }

// exports returns the exported names that files, one package, declare.
func exports(files []*file) []export {
	var out []export
	for _, f := range files {
		for _, decl := range f.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					recv := receiver(d)
					if !ast.IsExported(recv) {
						continue
					}
					name = recv + "." + name
				}
				if d.Name.IsExported() {
					out = append(out, export{name: name, ident: d.Name.Name, tok: token.FUNC, node: d, doc: d.Doc != nil, types: named(d.Type)})
				}
			case *ast.GenDecl:
				enum := ""
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							out = append(out, export{name: s.Name.Name, ident: s.Name.Name, tok: d.Tok, node: s, doc: d.Doc != nil || s.Doc != nil, types: named(s.Type)})
						}
					case *ast.ValueSpec:
						// "B" after "A Mode = iota" is a Mode too.
						if s.Type != nil || len(s.Values) > 0 {
							enum = typeName(s.Type)
						}
						for _, n := range s.Names {
							if n.IsExported() {
								documented := d.Doc != nil || s.Doc != nil || s.Comment != nil
								e := export{name: n.Name, ident: n.Name, tok: d.Tok, node: s, doc: documented}
								if d.Tok == token.CONST {
									e.enum = enum
								}
								out = append(out, e)
							}
						}
					}
				}
			}
		}
	}
	return out
}

func receiver(d *ast.FuncDecl) string { return typeName(d.Recv.List[0].Type) }

// typeName returns the name of a type of the package itself, or of a pointer to one;
// of any other, where there is one at all, something that is not empty.
func typeName(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		case nil:
			return ""
		default:
			return "another package's"
		}
	}
}

func named(n ast.Node) map[string]struct{} {
	types := map[string]struct{}{}
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			types[id.Name] = struct{}{}
		}
		return true
	})
	return types
}

// maxSurface is how many names a newcomer can hold at once.
const maxSurface = 15

// What does not fit is a package of its own, or not needed. The type of an enumeration
// is no more to learn than its constants are.
var surfaceSize = rule{
	name: "exported surface",
	judge: func(t *tree) (bad []string) {
		for dir, files := range t.public() {
			var names []string
			all := exports(files)
			enums := map[string]bool{}
			for _, e := range all {
				enums[e.enum] = true
			}
			for _, e := range all {
				if !e.isMethod() && !e.isError() && e.enum == "" && !(e.tok == token.TYPE && enums[e.name]) && e.name != "Options" && e.name != "Stats" {
					names = append(names, e.name)
				}
			}
			if len(names) > maxSurface {
				bad = append(bad, fmt.Sprintf("%s exports %d types, functions and values beside Options, Stats, errors and enum constants, more than %d: move some to a subpackage, or unexport them: %s",
					dir, len(names), maxSurface, strings.Join(names, " ")))
			}
		}
		return bad
	},
	broken: []control{
		{"a constant without a type", map[string]string{"lock/more.go": "package lock\nconst C = 1\n" + strings.Repeat("func F() {}\n", 13)}, "lock exports 16"},
		{"16 names", map[string]string{"lock/more.go": "package lock\n" + strings.Repeat("func F() {}\n", 14)}, "lock exports 16"},
	},
}

var docComments = rule{
	name: "doc comments",
	judge: func(t *tree) (bad []string) {
		for _, files := range t.public() {
			for _, e := range exports(files) {
				if !e.doc && !standardMethod(e) {
					bad = append(bad, t.at(e.node, "%s has no comment: say what it does, with units, limits and errors", e.name))
				}
				spec, ok := e.node.(*ast.TypeSpec)
				if !ok || e.name != "Options" {
					continue
				}
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						if field.Doc == nil && field.Comment == nil {
							bad = append(bad, t.at(field, "Options.%s has no comment: say what it does, its unit, its default and what -1 means", fieldName(field)))
						}
					}
				}
			}
		}
		return bad
	},
	broken: []control{
		{"function", map[string]string{"lock/a.go": "package lock\n\nfunc Bare() {}\n"}, "lock/a.go:3: Bare"},
		{"option", map[string]string{"lock/sub/a.go": "package sub\n\n// Options are.\ntype Options struct {\n\tA int // a\n\tB int\n}\n"}, "lock/sub/a.go:6: Options.B"},
	},
}

func fieldName(f *ast.Field) string {
	if len(f.Names) == 0 {
		return "embedded"
	}
	return f.Names[0].Name
}

// standardMethod reports whether e is a method that a well-known interface asks
// for: nobody calls it by name, and everybody knows what it does.
func standardMethod(e export) bool {
	return e.isMethod() && slices.Contains([]string{
		"Error", "Unwrap", "Is", "As", "String", "GoString", "Format", "LogValue", "ServeHTTP", "Read", "Write",
		"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "MarshalBinary", "UnmarshalBinary",
		"Len", "Less", "Swap", "Timeout", "Temporary", "Scan", "Value",
	}, e.ident)
}

// A name that no example needs is a name that nobody needs. An example is the
// body of an Example function, the whole of an example_*_test.go file, or a
// file in examples/ that imports the package. A type is also shown by
// an exported name that is shown and speaks of it: the Result of a call in an example.
//
// It guesses by name: any identifier of an example counts.
var shownInExamples = rule{
	name: "shown in examples",
	judge: func(t *tree) (bad []string) {
		for dir, files := range t.public() {
			shown := t.shown(dir)
			all := exports(files)
			for grown := true; grown; {
				grown = false
				for _, e := range all {
					if _, ok := shown[e.ident]; !ok {
						continue
					}
					for name := range e.types {
						if _, ok := shown[name]; !ok && slices.ContainsFunc(all, func(x export) bool { return x.tok == token.TYPE && x.name == name }) {
							shown[name], grown = struct{}{}, true
						}
					}
				}
			}
			var missing []string
			for _, e := range all {
				if _, ok := shown[e.ident]; !ok && !standardMethod(e) {
					missing = append(missing, e.name)
				}
			}
			if len(missing) > 0 {
				bad = append(bad, fmt.Sprintf("%s: in no Example and in no program of examples/: show its use there, or unexport it: %s", dir, strings.Join(missing, " ")))
			}
		}
		return bad
	},
	broken: []control{
		{"function", map[string]string{"lock/a.go": "package lock\n\nfunc Unshown() {}\n"}, "Unshown"},
		{"method", map[string]string{"lock/a.go": "package lock\n\nfunc (l *Locker) Unshown() {}\n"}, "Locker.Unshown"},
		{"no example at all", map[string]string{"lock/example_test.go": ""}, "Acquire"},
	},
}

func (t *tree) shown(dir string) map[string]struct{} {
	shown := map[string]struct{}{}
	for _, f := range t.files {
		switch {
		case f.dir == dir && f.test && strings.HasPrefix(path.Base(f.path), "example"),
			f.kind == example && slices.Contains(f.paths, path.Join(t.module, dir)):
			maps.Copy(shown, named(f.syntax))
		case f.dir == dir && f.test:
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Example") {
					maps.Copy(shown, named(fn))
				}
			}
		}
	}
	return shown
}
