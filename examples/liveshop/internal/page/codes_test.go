package page

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The codes whose status alone says what a person is told; see text in api.js.
var byStatus = map[string]string{
	"too_many":    "err.busy",
	"unavailable": "err.away",
	"unknown":     "err.away",
}

// The codes that the program decides on while it runs, by the name of the variable.
var variable = map[string][]string{"what": {"early", "late", "empty"}}

// Each code that the API can answer has a text in both languages, and each text of an error
// a code that can be answered.
func TestCodesHaveTexts(t *testing.T) {
	code := source{}
	require.NoError(t, fs.WalkDir(os.DirFS(".."), ".", func(file string, d fs.DirEntry, err error) error {
		// What reads answers, and never gives one, makes errors of its own.
		if err != nil || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "client/") {
			return err
		}
		text, err := os.ReadFile(path.Join("..", file))
		code[file] = string(text)
		return err
	}))
	require.Empty(t, untold(code, sources()))
	codes, _ := codesOf(code)
	require.Subset(t, codes, []string{"was_on_sale", "ended", "sold_out", "late", "forbidden", "not_running", "internal"}, "one of each way to say it")
}

func TestCodesHaveTextsCatches(t *testing.T) {
	page := func(keys ...string) source {
		text := ""
		for _, key := range keys {
			text += fmt.Sprintf("  %q: \"Text\",\n", key)
		}
		return source{"/js/en.js": text, "/js/zh.js": text}
	}
	for _, c := range []struct {
		code string
		page source
		want string
	}{
		{`var e = Conflict("new", "text")`, page(), "new has no text"},
		{`var e = api.Conflict("new", "text")`, source{"/js/en.js": `  "err.new": "New",`}, "new has no text in zh.js"},
		{`var e = &api.Error{Status: 400, Code: "new"}`, page(), "new has no text"},
		{`func f(no *api.Error) { no.Code, no.Msg = "new", "text" }`, page(), "new has no text"},
		{`const c = "new"; var e = api.Conflict(c, "text")`, page(), "new has no text"},
		{`var e = api.Conflict(some(), "text")`, page(), "p/x.go: some() is decided at run time"},
		{`var e = &api.Error{Status: 429, Code: "too_many"}`, page("err.busy"), ""},
		{`var e = &api.Error{Status: 429, Code: "too_many"}`, page(), "too_many has no text"},
		{`var e = other{Code: "new"}`, page("err.gone"), "gone can not be answered"},
	} {
		wrong := untold(source{"p/x.go": "package p\n" + c.code}, c.page)
		if c.want == "" {
			require.Empty(t, wrong, c.code)
		} else {
			require.Contains(t, strings.Join(wrong, "\n"), c.want, c.code)
		}
	}
}

// untold holds the codes in Go against the page's texts.
func untold(code, page source) (wrong []string) {
	codes, wrong := codesOf(code)
	needed := map[string]bool{}
	for _, c := range codes {
		key := "err." + c
		if text, ok := byStatus[c]; ok {
			key = text
		}
		needed[key] = true
		for _, language := range []string{"en.js", "zh.js"} {
			if _, ok := texts(page, "/js/"+language)[key]; !ok {
				wrong = append(wrong, c+" has no text in "+language)
			}
		}
	}
	for key := range texts(page, "/js/en.js") {
		if c, ok := strings.CutPrefix(key, "err."); ok && !needed[key] && c != "away" && c != "busy" { // who does not answer has no code
			wrong = append(wrong, c+" can not be answered")
		}
	}
	return wrong
}

// codesOf returns the codes of the errors that Go files make, and what hides one.
func codesOf(files source) (codes, hidden []string) {
	parsed, constants := map[string]*ast.File{}, map[string]string{} // by directory and name
	for name, text := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			hidden = append(hidden, err.Error())
			continue
		}
		parsed[name] = f
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.CONST {
				for _, spec := range d.Specs {
					v := spec.(*ast.ValueSpec)
					for i := range min(len(v.Names), len(v.Values)) {
						if text, ok := literally(v.Values[i]); ok {
							constants[path.Dir(name)+v.Names[i].Name] = text
						}
					}
				}
			}
		}
	}
	found := map[string]bool{}
	for name, f := range parsed {
		note := func(e ast.Expr) {
			text, ok := literally(e)
			id, named := e.(*ast.Ident)
			if !ok && named {
				text, ok = constants[path.Dir(name)+id.Name]
			}
			switch {
			case ok:
				found[text] = true
			case named && variable[id.Name] != nil:
				for _, text := range variable[id.Name] {
					found[text] = true
				}
			case !named || id.Name != "code": // Conflict itself
				hidden = append(hidden, fmt.Sprintf("%s: %s is decided at run time", name, written(e)))
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if called(n.Fun) == "Conflict" && len(n.Args) == 2 {
					note(n.Args[0])
				} else if called(n.Fun) == "later" && len(n.Args) == 4 { // of the demo's proxy
					note(n.Args[2])
				}
			case *ast.CompositeLit:
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok && called(n.Type) == "Error" && called(kv.Key) == "Code" {
						note(kv.Value)
					}
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "Code" && len(n.Rhs) == len(n.Lhs) {
						if _, ok := literally(n.Rhs[i]); ok { // what is copied was found where it was made
							note(n.Rhs[i])
						}
					}
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found)), hidden
}

func literally(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// called returns the name at the end of an expression, without its package.
func called(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func written(e ast.Expr) string {
	if c, ok := e.(*ast.CallExpr); ok {
		return called(c.Fun) + "()"
	}
	return called(e)
}
