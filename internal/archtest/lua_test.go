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
	calls      []luaCall
}

type luaToken struct {
	text string // of a string, its content
	line int
	str  bool
}

// A luaCall is a call of redis.call or redis.pcall, also under another name:
// local call = redis.call.
type luaCall struct {
	line int
	args [][]luaToken
}

// headerWords open the lines of a header. A Prelude is a file of functions that
// stands before several scripts; it has no keys of its own.
var (
	headerWords = []string{"KEYS", "ARGV", "Returns", "Derived", "Retry"}
	headerLine  = regexp.MustCompile(`^--\s*(KEYS|ARGV|Returns|Derived|Retry|Prelude)\b:?\s*(.*)$`)
	luaTokens   = regexp.MustCompile(`(?s)^(?:\s+|(--\[\[.*?\]\]|--[^\n]*)|(\[\[.*?\]\]|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|([A-Za-z_][A-Za-z0-9_]*|0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\.\.\.|\.\.|==|~=|<=|>=|.))`)
)

func parseLua(name, text string) *luaFile {
	l := &luaFile{path: name, text: text, header: map[string]string{}}
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
	l.findCalls()
	return l
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
	for i := range l.tokens {
		if l.is(i, "local") && l.is(i+2, "=") && l.redisCall(i+3) && !l.is(i+6, "(") {
			aliases[l.tokens[i+1].text] = true
		}
		open := 0
		if l.redisCall(i) && l.is(i+3, "(") {
			open = i + 3
		} else if !l.tokens[i].str && aliases[l.tokens[i].text] && !l.is(i-1, ".") && l.is(i+1, "(") {
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

// reach returns expr and the values of the local variables in it, and of those
// in them. A variable that is assigned twice has both values.
func (l *luaFile) reach(expr []luaToken) []luaToken {
	values := map[string][]luaToken{}
	for i := 1; i < len(l.tokens)-1; i++ {
		if !l.is(i, "=") || l.is(i-2, ".") || l.is(i-1, "]") {
			continue
		}
		name := l.tokens[i-1].text
		for j := i + 1; j < len(l.tokens) && l.tokens[j].line == l.tokens[i].line; j++ {
			values[name] = append(values[name], l.tokens[j])
		}
	}
	seen := map[string]bool{}
	out := slices.Clone(expr)
	for i := 0; i < len(out); i++ {
		name := out[i].text
		// What is indexed or called gives another value: now[1], f(x).
		if out[i].str || seen[name] || values[name] == nil {
			continue
		}
		seen[name] = true
		out = append(out, values[name]...)
	}
	return out
}

// dir is the directory of the file.
func (l *luaFile) dir() string { return path.Dir(l.path) }
