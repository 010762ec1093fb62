package page

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What nobody compiles is judged here: the files of the page, by path.
type source map[string]string

func sources() source {
	s := source{}
	for url, f := range load() {
		s[url] = string(f.body)
	}
	return s
}

// A rule returns what is wrong with a page. Each control breaks it, and want is part of
// what the rule must say then.
type rule struct {
	name     string
	judge    func(source) []string
	controls []control
}

type control struct {
	broken source
	want   string
}

var rules = []rule{
	{"texts stay texts", parsesHTML, []control{
		{source{"/js/a.js": "node.innerHTML = name;"}, "/js/a.js: innerHTML"},
		{source{"/js/a.js": `new Function("x")`}, "new Function"},
	}},
	{"nothing inline", inline, []control{
		{source{"/": `<p onclick="go()">`}, "onclick"},
		{source{"/": `<p style="color: red">`}, "style"},
		{source{"/": "<script>go()</script>"}, "script without src"},
	}},
	{"nothing from elsewhere", elsewhere, []control{
		{source{"/css/a.css": "@import url(https://fonts.example/x)"}, "https://fonts.example"},
	}},
	{"the token leaves in a header only", tokens, []control{
		{source{"/js/a.js": `localStorage.setItem("t", token)`}, "/js/a.js: localStorage"},
		{source{"/js/a.js": "document.cookie = token"}, "document.cookie"},
	}},
	{"imports", imports, []control{
		{source{"/js/main.js": `import { el } from "./dom.js";`, "/js/dom.js": "export function svg() {}"}, "el is not exported"},
		{source{"/js/main.js": `import "./gone.js";`}, "/js/gone.js is not there"},
		{source{"/js/main.js": "", "/js/lonely.js": ""}, "/js/lonely.js is imported by nobody"},
		{source{"/js/main.js": `import { el as x } from "./dom.js";`, "/js/dom.js": "export function el() {}"}, "x is imported and not used"},
	}},
	{"both languages", languages, []control{
		{source{"/js/en.js": `a: "A {n}",`, "/js/zh.js": `b: "B",`}, "only in en.js: a"},
		{source{"/js/en.js": `a: "A {n}",`, "/js/zh.js": `a: "A {m}",`}, "a: other values"},
	}},
	{"texts", keys, []control{
		{source{"/js/en.js": "", "/js/a.js": `t: "shelf.lost"`}, "there is no text shelf.lost"},
		{source{"/js/en.js": `"shelf.old": "Old",`, "/js/a.js": ``}, "shelf.old is used nowhere"},
	}},
	{"length", length, []control{
		{source{"/js/a.js": strings.Repeat("\n", 400)}, "/js/a.js has 401 lines"},
	}},
}

func TestRules(t *testing.T) {
	for _, r := range rules {
		assert.Empty(t, r.judge(sources()), r.name)
	}
}

func TestRulesCatchWhatTheyForbid(t *testing.T) {
	for _, r := range rules {
		for _, c := range r.controls {
			assert.Contains(t, strings.Join(r.judge(c.broken), "\n"), c.want, r.name)
		}
	}
}

// each looks for a pattern in the files of a kind.
func each(s source, ext string, pattern *regexp.Regexp, found func(file string, match []string)) {
	for _, file := range slices.Sorted(maps.Keys(s)) {
		if path.Ext(file) != ext && !(ext == ".html" && file == "/") {
			continue
		}
		for _, m := range pattern.FindAllStringSubmatch(s[file], -1) {
			found(file, m)
		}
	}
}

var parsing = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTML|\beval\(|new Function`)

func parsesHTML(s source) (bad []string) {
	each(s, ".js", parsing, func(file string, m []string) { bad = append(bad, file+": "+m[0]) })
	return bad
}

var (
	handler   = regexp.MustCompile(`\s(on\w+|style)=`)
	script    = regexp.MustCompile(`<script(?:\s[^>]*)?>`)
	attribute = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
)

// inline is what the Content-Security-Policy would keep from working.
func inline(s source) (bad []string) {
	each(s, ".html", handler, func(_ string, m []string) { bad = append(bad, "index.html: "+m[1]) })
	each(s, ".html", script, func(_ string, m []string) {
		if !strings.Contains(m[0], "src=") {
			bad = append(bad, "index.html: script without src")
		}
	})
	each(s, ".js", regexp.MustCompile(`[^.\w]style:|setAttribute\("style"`), func(file string, m []string) { bad = append(bad, file+": "+m[0]) })
	return bad
}

// The address that names SVG is no place to load from.
var address = regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s"')]*`)

func elsewhere(s source) (bad []string) {
	for _, ext := range []string{".html", ".css", ".js", ".svg"} {
		each(s, ext, address, func(file string, m []string) {
			if m[0] != "http://www.w3.org/2000/svg" {
				bad = append(bad, file+": "+m[0])
			}
		})
	}
	return bad
}

// What stays in the browser is the language and whether the control room is open.
func tokens(s source) (bad []string) {
	may := map[string]string{"localStorage": "/js/i18n.js /js/operator.js", "sessionStorage": "/js/session.js", "Authorization": "/js/api.js"}
	each(s, ".js", regexp.MustCompile(`localStorage|sessionStorage|Authorization|document\.cookie`), func(file string, m []string) {
		if !strings.Contains(may[m[0]], file) && !commented(s[file], m[0]) {
			bad = append(bad, file+": "+m[0])
		}
	})
	return bad
}

// commented reports whether a word stands in comments only.
func commented(text, word string) bool {
	for line := range strings.Lines(text) {
		code, _, _ := strings.Cut(line, "//")
		if strings.Contains(code, word) {
			return false
		}
	}
	return true
}

var (
	imported = regexp.MustCompile(`(?m)^import (?:(\w+) from |\* as (\w+) from |\{([^}]*)\} from )?"\./([\w-]+\.js)";`)
	exported = regexp.MustCompile(`(?m)^export (?:async )?(?:function|const|class|let) (\w+)`)
)

func imports(s source) (bad []string) {
	reached := map[string]bool{"/js/main.js": true}
	each(s, ".js", imported, func(file string, m []string) {
		target := "/js/" + m[4]
		reached[target] = true
		text, ok := s[target]
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: %s is not there", file, target))
			return
		}
		var has []string
		for _, e := range exported.FindAllStringSubmatch(text, -1) {
			has = append(has, e[1])
		}
		locals := []string{m[1], m[2]}
		for item := range strings.SplitSeq(m[3], ",") {
			name, local, renamed := strings.Cut(strings.TrimSpace(item), " as ")
			if !renamed {
				local = name
			}
			if locals = append(locals, local); name != "" && !slices.Contains(has, name) {
				bad = append(bad, fmt.Sprintf("%s: %s is not exported by %s", file, name, target))
			}
		}
		for _, name := range locals {
			if name != "" && len(regexp.MustCompile(`\b`+name+`\b`).FindAllString(s[file], 2)) < 2 {
				bad = append(bad, fmt.Sprintf("%s: %s is imported and not used", file, name))
			}
		}
	})
	for file := range s {
		if path.Ext(file) == ".js" && !reached[file] {
			bad = append(bad, file+" is imported by nobody")
		}
	}
	return bad
}

var (
	text  = regexp.MustCompile(`(?m)^\s*"?([\w.-]+)"?: "((?:[^"\\]|\\.)*)",`)
	value = regexp.MustCompile(`\{\w+\}`)
)

// texts returns a language's texts by key.
func texts(s source, file string) map[string]string {
	all := map[string]string{}
	for _, m := range text.FindAllStringSubmatch(s[file], -1) {
		all[m[1]] = m[2]
	}
	return all
}

func languages(s source) (bad []string) {
	en, zh := texts(s, "/js/en.js"), texts(s, "/js/zh.js")
	values := func(text string) []string { return slices.Sorted(slices.Values(value.FindAllString(text, -1))) }
	for key, text := range en {
		if _, ok := zh[key]; !ok {
			bad = append(bad, "only in en.js: "+key)
		} else if !slices.Equal(values(text), values(zh[key])) {
			bad = append(bad, key+": other values")
		}
	}
	for key := range zh {
		if _, ok := en[key]; !ok {
			bad = append(bad, "only in zh.js: "+key)
		}
	}
	return bad
}

var (
	literal = regexp.MustCompile("[\"`]([a-z_]+(?:\\.[a-z_-]+)*\\.?)[\"`$]")
	dotted  = regexp.MustCompile(`^[a-z]+(\.[a-z_-]+)+$`)
	first   = regexp.MustCompile(`^[a-z]+\.`)
)

// keys holds the texts that code names against those that there are. A literal that
// ends in a dot is the beginning of keys, of which the rest is known at run time only.
func keys(s source) (bad []string) {
	en := texts(s, "/js/en.js")
	groups, used := map[string]bool{}, map[string]bool{}
	for key := range en {
		groups[first.FindString(key)] = true
	}
	note := func(file string, m []string) {
		if file == "/js/en.js" || file == "/js/zh.js" {
			return
		}
		used[m[1]] = true
		_, ok := en[m[1]]
		if _, done := en[m[1]+".done"]; dotted.MatchString(m[1]) && !ok && !done && !strings.HasSuffix(m[1], ".js") {
			bad = append(bad, file+": there is no text "+m[1])
		}
	}
	each(s, ".js", literal, note)
	each(s, ".html", literal, note)
	for key := range en {
		prefix := key[:strings.LastIndex(key, ".")+1]
		if !used[key] && !(prefix != "" && used[prefix]) && !used[first.FindString(key)] && !(strings.HasSuffix(key, ".done") && used[strings.TrimSuffix(key, ".done")]) {
			bad = append(bad, key+" is used nowhere")
		}
	}
	return bad
}

func length(s source) (bad []string) {
	for file, text := range s {
		if n := strings.Count(text, "\n") + 1; n > 400 {
			bad = append(bad, fmt.Sprintf("%s has %d lines: a file is one idea", file, n))
		}
	}
	return bad
}
