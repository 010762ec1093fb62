package archtest

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A luaFile is a Lua file, cut into tokens.
type luaFile struct {
	path, text string
	header     map[string]string // the opening comment, by its words: KEYS, ARGV, …
	tokens     []luaToken
	scope      []*luaFile // itself and the preludes beside it, which may stand before it
	calls      []luaCall
	commandVar map[string]bool // parameters that hold a command: see wrappers
}

type luaToken struct {
	text string // of a string, its content
	line int
	str  bool
}

// A luaCall is a call of redis.call or redis.pcall, also by another name:
// local call = redis.call, or function write(command, …) that calls it.
type luaCall struct {
	line int
	args [][]luaToken
}

// headerWords open the lines of a header. A Prelude is a file of functions that
// stands before several scripts; it has no keys of its own.
var (
	headerWords = []string{"KEYS", "ARGV", "Returns", "Derived", "Retry"}
	headerLine  = regexp.MustCompile(`^-- (KEYS|ARGV|Returns|Derived|Retry|Prelude)\b:?\s*(.*)$`)
	luaTokens   = regexp.MustCompile(`(?s)^(?:\s+|(--\[\[.*?\]\]|--[^\n]*)|(\[\[.*?\]\]|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|([A-Za-z_][A-Za-z0-9_]*|0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\.\.\.|\.\.|==|~=|<=|>=|.))`)
)

func parseLua(name, text string) *luaFile {
	l := &luaFile{path: name, text: text, header: map[string]string{}, commandVar: map[string]bool{}}
	word := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "--") {
			break
		}
		if m := headerLine.FindStringSubmatch(line); m != nil {
			word = m[1]
			l.header[word] = strings.TrimSpace(m[2])
		} else if word != "" {
			l.header[word] = strings.TrimSpace(l.header[word] + " " + strings.TrimLeft(line, "- "))
		}
	}
	for rest, line := text, 1; rest != ""; {
		m := luaTokens.FindStringSubmatch(rest)
		if s := m[2]; s != "" {
			cut := 1
			if s[0] == '[' {
				cut = 2
			}
			l.tokens = append(l.tokens, luaToken{s[cut : len(s)-cut], line, true})
		} else if m[3] != "" {
			l.tokens = append(l.tokens, luaToken{m[3], line, false})
		}
		line += strings.Count(m[0], "\n")
		rest = rest[len(m[0]):]
	}
	return l
}

// joinLua gives each file its scope, and finds the calls.
func joinLua(files []*luaFile) {
	for _, l := range files {
		l.scope = []*luaFile{l}
		for _, p := range files {
			if p != l && p.header["Prelude"] != "" && p.dir() == l.dir() {
				l.scope = append(l.scope, p)
			}
		}
	}
	for _, l := range files {
		l.findCalls()
	}
}

// is reports whether the tokens from i on are want, none of them a string.
func (l *luaFile) is(i int, want ...string) bool {
	for k, w := range want {
		if i < 0 || i+k >= len(l.tokens) || l.tokens[i+k].str || l.tokens[i+k].text != w {
			return false
		}
	}
	return true
}

func (l *luaFile) redisCall(i int) bool {
	return l.is(i, "redis", ".", "call") || l.is(i, "redis", ".", "pcall")
}

func (l *luaFile) findCalls() {
	aliases := map[string]bool{}
	for _, in := range l.scope {
		for _, a := range in.assignments() {
			if v := a.value; len(v) == 3 && v[0].text == "redis" && (v[2].text == "call" || v[2].text == "pcall") {
				aliases[a.name] = true
			}
		}
	}
	for _, in := range l.scope {
		in.wrappers(aliases, l.commandVar)
	}
	for i := range l.tokens {
		open := 0
		if l.redisCall(i) && l.is(i+3, "(") {
			open = i + 3
		} else if !l.tokens[i].str && aliases[l.tokens[i].text] && !l.is(i-1, ".") && !l.is(i-1, "function") && l.is(i+1, "(") {
			open = i + 1
		}
		if open == 0 {
			continue
		}
		c := luaCall{line: l.tokens[i].line, args: [][]luaToken{nil}}
		for j, depth := open, 0; j < len(l.tokens); j++ {
			tok := l.tokens[j]
			if !tok.str && strings.Contains("([{", tok.text) {
				depth++
			}
			if !tok.str && strings.Contains(")]}", tok.text) {
				if depth--; depth == 0 {
					break
				}
			}
			last := len(c.args) - 1
			if depth == 1 && !tok.str && tok.text == "," {
				c.args = append(c.args, nil)
			} else if j > open {
				c.args[last] = append(c.args[last], tok)
			}
		}
		l.calls = append(l.calls, c)
	}
}

func (c luaCall) command() (string, bool) {
	if len(c.args[0]) == 1 && c.args[0][0].str {
		return strings.ToUpper(c.args[0][0].text), true
	}
	return "", false
}

func (l *luaFile) at(line int, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", l.path, line) + fmt.Sprintf(format, args...)
}

// has reports whether tokens has the name or sign word.
func has(tokens []luaToken, word string) bool {
	return slices.ContainsFunc(tokens, func(t luaToken) bool { return !t.str && t.text == word })
}

// wrappers adds to aliases the functions that hand their first parameter to a
// command call as the command, and to params the names of those parameters.
func (l *luaFile) wrappers(aliases, params map[string]bool) {
	for i := range l.tokens {
		if !l.is(i, "function") || !l.is(i+2, "(") || i+3 >= len(l.tokens) {
			continue
		}
		name, param := l.tokens[i+1].text, l.tokens[i+3].text
		for j := i + 4; j < len(l.tokens) && !l.is(j, "function"); j++ {
			if (aliases[l.tokens[j].text] || l.redisCall(j-2)) && l.is(j+1, "(", param, ",") {
				aliases[name], params[param] = true, true
			}
		}
	}
}

type luaAssignment struct {
	name  string
	value []luaToken
}

// assignments returns what is assigned to names, each name with its value or, where
// values are not one a name, with all of them. A value ends with its line.
func (l *luaFile) assignments() []luaAssignment {
	var out []luaAssignment
	braces := 0 // within them, = names a field
	for i, tok := range l.tokens {
		if !tok.str && tok.text == "{" {
			braces++
		}
		if !tok.str && tok.text == "}" {
			braces--
		}
		if braces > 0 || !l.is(i, "=") || i == 0 || l.is(i-1, "]") || l.is(i-2, ".") {
			continue
		}
		names := []string{l.tokens[i-1].text}
		for j := i - 2; j > 0 && l.is(j, ",") && !l.is(j-1, "]"); j -= 2 {
			names = append([]string{l.tokens[j-1].text}, names...)
		}
		values := [][]luaToken{nil}
		for j, depth := i+1, 0; j < len(l.tokens) && l.tokens[j].line == l.tokens[i].line; j++ {
			tok := l.tokens[j]
			if !tok.str && slices.Contains([]string{";", "local", "do", "then", "end", "return"}, tok.text) {
				break
			}
			if !tok.str && strings.Contains("([{", tok.text) {
				depth++
			}
			if !tok.str && strings.Contains(")]}", tok.text) {
				depth--
			}
			if depth == 0 && !tok.str && tok.text == "," {
				values = append(values, nil)
				continue
			}
			values[len(values)-1] = append(values[len(values)-1], tok)
		}
		for k, name := range names {
			value := slices.Concat(values...)
			if len(values) == len(names) {
				value = values[k]
			}
			out = append(out, luaAssignment{name, value})
		}
	}
	return out
}

// reach returns expr and the values of the variables in it, and of those in
// them. A variable that is assigned twice has both values. Which of the KEYS it
// is does not count, nor what a function is given: its result is another value,
// unless it only puts strings together. Nor do numbers.
func (l *luaFile) reach(expr []luaToken) []luaToken {
	values := map[string][]luaToken{}
	for _, in := range l.scope {
		for _, a := range in.assignments() {
			if v := ownParts(a.value); !slices.ContainsFunc(arithmetic, func(op string) bool { return has(v, op) }) {
				values[a.name] = append(values[a.name], v...)
			}
		}
	}
	seen := map[string]bool{}
	out := ownParts(expr)
	for i := 0; i < len(out); i++ {
		if name := out[i].text; !out[i].str && !seen[name] {
			seen[name] = true
			out = append(out, values[name]...)
		}
	}
	return out
}

var arithmetic = []string{"+", "-", "*", "/", "%", "#", "==", "~=", "<", ">", "<=", ">=", "not"}

// ownParts returns expr without indexes of KEYS and calls of functions.
func ownParts(expr []luaToken) []luaToken {
	var out []luaToken
	skip := 0 // depth of brackets in what is left out
	for i, tok := range expr {
		opens := !tok.str && strings.Contains("([{", tok.text)
		if skip == 0 && opens && i > 0 && !expr[i-1].str {
			before := expr[i-1].text
			call := tok.text == "(" && isName(before) && before != "format" && before != "concat"
			if call || before == "KEYS" {
				if skip = 1; call {
					out = out[:len(out)-1]
				}
				continue
			}
		}
		switch {
		case skip == 0:
			out = append(out, tok)
		case opens:
			skip++
		case !tok.str && strings.Contains(")]}", tok.text):
			skip--
		}
	}
	return out
}

func isName(s string) bool {
	return s[0] == '_' || s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z'
}

// dir is the directory of the file.
func (l *luaFile) dir() string { return path.Dir(l.path) }
