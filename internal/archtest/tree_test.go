package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A tree is the source of a module, with the modules nested in it.
type tree struct {
	module string // its path, from go.mod
	fset   *token.FileSet
	files  []*file           // Go
	lua    []*luaFile        // Lua
	mods   map[string]string // go.mod and go.work files by path
	docs   map[string]string // Markdown by path
	paths  map[string]bool   // of all files and directories
}

// A file is a Go file.
type file struct {
	syntax    *ast.File
	path, dir string // slash-separated, relative to the root; "." is the root
	lines     int
	test      bool
	kind      kind
	paths     []string          // what it imports
	imports   map[string]string // the same by the name that the file uses
}

// kind says which rules a directory is under.
type kind int

const (
	public  kind = iota // what users import
	private             // internal/ code that public packages stand on
	harness             // internal/ code that only tests use
	example             // examples/
	nested              // another module: bench, tools, internal/e2e
)

// harnessDirs are the internal packages that are for tests alone.
var harnessDirs = []string{"internal/archtest", "internal/redistest", "internal/sqltest", "internal/chaos"}

func load(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), mods: map[string]string{}, docs: map[string]string{}, paths: map[string]bool{}}
	texts := map[string][]byte{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		t.paths[p] = true
		if d.IsDir() {
			if p != "." && (name == "testdata" || name[0] == '.' || name[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if ext := path.Ext(name); ext == ".go" || ext == ".lua" || ext == ".md" || name == "go.mod" || name == "go.work" {
			texts[p], err = fs.ReadFile(fsys, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for p, text := range texts {
		switch path.Ext(p) {
		case ".mod", ".work":
			t.mods[p] = string(text)
		case ".md":
			t.docs[p] = string(text)
		case ".lua":
			t.lua = append(t.lua, parseLua(p, string(text)))
		case ".go":
			f, err := parser.ParseFile(t.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			t.files = append(t.files, &file{
				syntax: f, path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"),
				lines: strings.Count(string(text), "\n"),
			})
		}
	}
	m := regexp.MustCompile(`(?m)^module\s+(\S+)`).FindStringSubmatch(t.mods["go.mod"])
	if m == nil {
		return nil, fmt.Errorf("no module line in go.mod")
	}
	t.module = m[1]
	for _, f := range t.files {
		f.kind = t.kind(f.dir)
		f.addImports()
	}
	slices.SortFunc(t.files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	slices.SortFunc(t.lua, func(a, b *luaFile) int { return strings.Compare(a.path, b.path) })
	joinLua(t.lua)
	return t, nil
}

func (t *tree) kind(dir string) kind {
	for d := dir; d != "."; d = path.Dir(d) {
		if _, ok := t.mods[d+"/go.mod"]; ok {
			return nested
		}
	}
	switch first, _, _ := strings.Cut(dir, "/"); {
	case first == "examples":
		return example
	case slices.ContainsFunc(harnessDirs, func(h string) bool { return under(dir, h) }):
		return harness
	case slices.Contains(strings.Split(dir, "/"), "internal"):
		return private
	}
	return public
}

// under reports whether the slash-separated p is dir or lies in it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// library returns the files that end up in a user's program.
func (t *tree) library() []*file {
	return t.where(func(f *file) bool { return !f.test && (f.kind == public || f.kind == private) })
}

// public returns the files of the packages that users import, by directory.
func (t *tree) public() map[string][]*file {
	dirs := map[string][]*file{}
	for _, f := range t.files {
		if !f.test && f.kind == public {
			dirs[f.dir] = append(dirs[f.dir], f)
		}
	}
	return dirs
}

func (t *tree) where(keep func(*file) bool) []*file {
	var out []*file
	for _, f := range t.files {
		if keep(f) {
			out = append(out, f)
		}
	}
	return out
}

// at prefixes a message with the place of n.
func (t *tree) at(n ast.Node, format string, args ...any) string {
	p := t.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d: ", p.Filename, p.Line) + fmt.Sprintf(format, args...)
}

// addImports fills paths and imports. The name of a package is guessed from its path.
func (f *file) addImports() {
	f.imports = map[string]string{}
	for _, spec := range f.syntax.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		name := path.Base(p)
		if versionElem.MatchString(name) {
			name = path.Base(path.Dir(p))
		}
		name = strings.TrimPrefix(name, "go-") // go-redis/v9 is package redis
		if spec.Name != nil {
			name = spec.Name.Name
		}
		f.imports[name] = p
		f.paths = append(f.paths, p)
	}
}

var versionElem = regexp.MustCompile(`^v[0-9]+$`)

// callee returns the import path and the name of the function that call calls,
// if it is a function of an imported package.
func (f *file) callee(call *ast.CallExpr) (pkg, name string) { return f.selector(call.Fun) }

// selector returns the import path and the name of pkg.Name.
func (f *file) selector(e ast.Expr) (pkg, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return f.imports[x.Name], sel.Sel.Name
}

// calls yields every call in n.
func calls(n ast.Node, visit func(*ast.CallExpr)) {
	ast.Inspect(n, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			visit(c)
		}
		return true
	})
}

const goRedis = "github.com/redis/go-redis/v9"
