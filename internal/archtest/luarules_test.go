package archtest

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A script cannot be understood without what goes in, what comes out and what
// a second run does.
var luaHeader = rule{
	name: "Lua headers",
	judge: func(t *tree) (bad []string) {
		for _, l := range t.lua {
			if strings.HasPrefix(l.text, "#!") {
				bad = append(bad, l.at(1, "no shebang: Redis 6.2 and miniredis do not know it"))
			}
			if l.header["Prelude"] != "" {
				continue
			}
			for _, word := range headerWords {
				if l.header[word] == "" {
					bad = append(bad, l.at(1, "the opening comment lacks %q; it has the lines %s, or Prelude: alone (none is an answer)", word, strings.Join(headerWords, ", ")))
				}
			}
			if retry := l.header["Retry"]; retry != "" && l.retry() == "" {
				bad = append(bad, l.at(1, "Retry is %q: say token, state, bounded or read, and then why", retry))
			}
		}
		return bad
	},
	broken: []control{
		{"no header", luaIs("return 1\n"), `lacks "KEYS"`},
		{"incomplete", luaIs(strings.Replace(good["lock/acquire.lua"], "-- Derived none\n", "", 1)), `lacks "Derived"`},
		{"vague", luaIs(strings.Replace(good["lock/acquire.lua"], "token: the same", "safe, the same", 1)), "Retry is"},
		{"shebang", luaIs("#!lua\n" + good["lock/acquire.lua"]), "no shebang"},
		{"empty prelude", luaIs("-- Prelude:\nlocal x = 1\n"), "lacks"},
	},
}

// luaIs replaces the script of the good tree.
func luaIs(text string) map[string]string { return map[string]string{"lock/acquire.lua": text} }

// luaBody replaces what is under the header of the good tree's script.
func luaBody(body string) map[string]string {
	head, _, _ := strings.Cut(good["lock/acquire.lua"], "local")
	return luaIs(head + body + "\n")
}

// retry returns the first word of the Retry line, if it is one of the four.
func (l *luaFile) retry() string {
	for _, r := range []string{"token", "state", "bounded", "read"} {
		if rest, ok := strings.CutPrefix(l.header["Retry"], r); ok && (rest == "" || strings.ContainsAny(rest[:1], " :,;(.")) {
			return r
		}
	}
	return ""
}

// embeds returns the variables of the Go files in dir that hold one Lua file
// each, and all the Lua files that dir embeds.
func (t *tree) embeds(dir string) (vars map[string]*luaFile, files map[*luaFile]bool) {
	vars, files = map[string]*luaFile{}, map[*luaFile]bool{}
	for _, f := range t.files {
		if f.dir != dir {
			continue
		}
		for _, d := range f.syntax.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range gen.Specs {
				vs, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for _, doc := range []*ast.CommentGroup{gen.Doc, vs.Doc} {
					for _, pattern := range embedPatterns(doc) {
						for _, l := range t.lua {
							if ok, _ := path.Match(path.Join(dir, pattern), l.path); ok {
								files[l] = true
								vars[vs.Names[0].Name] = l
							}
						}
					}
				}
			}
		}
	}
	return vars, files
}

func embedPatterns(doc *ast.CommentGroup) []string {
	var patterns []string
	if doc != nil {
		for _, c := range doc.List {
			if args, ok := strings.CutPrefix(c.Text, "//go:embed "); ok {
				patterns = append(patterns, strings.Fields(args)...)
			}
		}
	}
	return patterns
}

// A script lives beside the Go code that runs it, and both say the same of a
// second run.
var luaEmbedded = rule{
	name: "Lua files and their Go code",
	judge: func(t *tree) (bad []string) {
		for _, l := range t.lua {
			if _, files := t.embeds(l.dir()); !files[l] {
				bad = append(bad, l.at(1, "no Go file beside it embeds it: a script lives with the code that runs it"))
			}
		}
		for _, f := range t.files {
			vars, _ := t.embeds(f.dir)
			calls(f.syntax, func(call *ast.CallExpr) {
				if pkg, name := f.callee(call); pkg != t.module+"/internal/script" || name != "New" || len(call.Args) < 2 {
					return
				}
				_, says := f.selector(call.Args[0])
				last, ok := call.Args[len(call.Args)-1].(*ast.Ident)
				if !ok || vars[last.Name] == nil {
					return
				}
				if l := vars[last.Name]; strings.ToLower(says) != l.retry() {
					bad = append(bad, t.at(call, "script.%s, but the header of %s says Retry %q", says, l.path, l.retry()))
				}
			})
		}
		return bad
	},
	broken: []control{
		{"orphan", map[string]string{"lock/release.lua": good["lock/acquire.lua"]}, "lock/release.lua:1: no Go file"},
		{"other word", map[string]string{"lock/a.go": "package lock\nimport \"example.com/house/internal/script\"\nvar s = script.New(script.Bounded, acquire)\n"},
			`script.Bounded, but the header of lock/acquire.lua says Retry "token"`},
	},
}

// Lua in a Go string is seen by none of the rules here.
var luaOnlyInFiles = rule{
	name: "no Lua in Go",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.library() {
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if ok && (strings.Contains(lit.Value, "redis.call(") || strings.Contains(lit.Value, "redis.pcall(")) {
					bad = append(bad, t.at(lit, "Lua in a Go string: make it a <verb>.lua beside this file and embed it"))
				}
				return true
			})
		}
		return bad
	},
	broken: []control{
		{"inline", map[string]string{"lock/a.go": "package lock\nvar s = `return redis.call('GET', KEYS[1])`\n"}, "lock/a.go:2: Lua in a Go string"},
	},
}

// commands holds the commands, with the flags, that a script may use: those
// that Redis 6.2, Valkey and miniredis share. Not here although they look it:
// EXPIRE's NX, XX, GT, LT, EXPIRETIME, LMPOP, ZMPOP, SINTERCARD (Redis 7.0);
// HEXPIRE (7.4); BITFIELD, ZRANGESTORE, OBJECT (not in miniredis); what blocks.
// INFO lacks most sections in miniredis, and an ACL may forbid it: use pcall.
var commands = map[string]string{
	"APPEND": "", "BITCOUNT": "", "BITPOS": "", "COPY": "REPLACE", "DECR": "", "DECRBY": "", "DEL": "", "EXISTS": "",
	"EXPIRE": "", "EXPIREAT": "", "GET": "", "GETBIT": "", "GETDEL": "", "GETEX": "EX PX EXAT PXAT PERSIST", "GETRANGE": "",
	"HDEL": "", "HEXISTS": "", "HGET": "", "HGETALL": "", "HINCRBY": "", "HINCRBYFLOAT": "", "HKEYS": "", "HLEN": "",
	"HMGET": "", "HRANDFIELD": "WITHVALUES", "HSCAN": "MATCH COUNT", "HSET": "", "HSETNX": "", "HSTRLEN": "", "HVALS": "",
	"INCR": "", "INCRBY": "", "INCRBYFLOAT": "", "INFO": "", "LINDEX": "", "LINSERT": "BEFORE AFTER", "LLEN": "", "LMOVE": "LEFT RIGHT",
	"LPOP": "", "LPUSH": "", "LPUSHX": "", "LRANGE": "", "LREM": "", "LSET": "", "LTRIM": "", "MGET": "", "MSET": "",
	"PERSIST": "", "PEXPIRE": "", "PEXPIREAT": "", "PFADD": "", "PFCOUNT": "", "PFMERGE": "", "PSETEX": "", "PTTL": "",
	"PUBLISH": "", "RENAME": "", "RENAMENX": "", "RPOP": "", "RPUSH": "", "RPUSHX": "", "SADD": "", "SCARD": "", "SDIFF": "",
	"SET": "NX XX EX PX EXAT PXAT KEEPTTL GET", "SETBIT": "", "SETEX": "", "SETNX": "", "SETRANGE": "", "SINTER": "",
	"SISMEMBER": "", "SMEMBERS": "", "SMISMEMBER": "", "SMOVE": "", "SPOP": "", "SRANDMEMBER": "", "SREM": "",
	"SSCAN": "MATCH COUNT", "STRLEN": "", "SUNION": "", "TIME": "", "TOUCH": "", "TTL": "", "TYPE": "", "UNLINK": "",
	"XACK": "", "XADD": "NOMKSTREAM MAXLEN MINID", "XAUTOCLAIM": "COUNT JUSTID", "XCLAIM": "IDLE TIME RETRYCOUNT FORCE JUSTID",
	"XDEL": "", "XGROUP": "CREATE MKSTREAM DESTROY CREATECONSUMER DELCONSUMER SETID", "XLEN": "", "XPENDING": "IDLE",
	"XRANGE": "COUNT", "XREVRANGE": "COUNT", "XTRIM": "MAXLEN MINID LIMIT",
	"ZADD": "NX XX GT LT CH INCR", "ZCARD": "", "ZCOUNT": "", "ZINCRBY": "", "ZLEXCOUNT": "", "ZMSCORE": "",
	"ZPOPMAX": "", "ZPOPMIN": "", "ZRANDMEMBER": "WITHSCORES", "ZRANGE": "BYSCORE BYLEX REV LIMIT WITHSCORES",
	"ZRANGEBYLEX": "LIMIT", "ZRANGEBYSCORE": "LIMIT WITHSCORES", "ZRANK": "", "ZREM": "", "ZREMRANGEBYLEX": "",
	"ZREMRANGEBYRANK": "", "ZREMRANGEBYSCORE": "", "ZREVRANGE": "WITHSCORES", "ZREVRANGEBYLEX": "LIMIT",
	"ZREVRANGEBYSCORE": "LIMIT WITHSCORES", "ZREVRANK": "", "ZSCAN": "MATCH COUNT", "ZSCORE": "",
}

// readCommands are those of them that a script may use which changes nothing.
var readCommands = strings.Fields(`BITCOUNT BITPOS EXISTS GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET HSTRLEN HVALS INFO LINDEX LLEN LRANGE
	MGET PFCOUNT PTTL SCARD SINTER SISMEMBER SMEMBERS SMISMEMBER STRLEN SUNION TIME TTL TYPE XLEN XPENDING XRANGE XREVRANGE ZCARD ZCOUNT ZLEXCOUNT
	ZMSCORE ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYSCORE ZREVRANK ZSCORE`)

// flagWords are the words that are flags of some command on some server; any
// other literal is data.
var flagWords = strings.Fields(`NX XX EX PX EXAT PXAT KEEPTTL GET GT LT CH INCR LIMIT WITHSCORES WITHSCORE WITHVALUES BYSCORE
	BYLEX REV COUNT MATCH MAXLEN MINID NOMKSTREAM KEEPREF DELREF ACKED JUSTID IDLE FORCE RETRYCOUNT PERSIST REPLACE MKSTREAM
	ENTRIESREAD LASTID AGGREGATE WEIGHTS STORE BIT BYTE ANY NOVALUES FNX FXX FIELDS IFEQ IFNE ABSTTL FREQ IDLETIME`)

var luaCommands = rule{
	name: "commands of scripts",
	judge: func(t *tree) (bad []string) {
		for _, l := range t.lua {
			for _, c := range l.calls {
				name, ok := c.command()
				if !ok && len(c.args[0]) == 1 && l.commandVar[c.args[0][0].text] {
					continue // judged where the command is given
				}
				if !ok {
					bad = append(bad, l.at(c.line, "the command is no literal: no rule can see what runs"))
					continue
				}
				flags, ok := commands[name]
				if !ok {
					bad = append(bad, l.at(c.line, "%s is not among the commands that Redis 6.2, Valkey and miniredis share", name))
					continue
				}
				if l.retry() == "read" && !slices.Contains(readCommands, name) {
					bad = append(bad, l.at(c.line, "%s in a script whose header says that it only reads", name))
				}
				used := map[string]bool{}
				for _, arg := range c.args[1:] {
					if len(arg) == 1 && arg[0].str && slices.Contains(flagWords, strings.ToUpper(arg[0].text)) {
						flag := strings.ToUpper(arg[0].text)
						used[flag] = true
						if !slices.Contains(strings.Fields(flags), flag) {
							bad = append(bad, l.at(c.line, "%s has no flag %s that Redis 6.2, Valkey and miniredis share", name, flag))
						}
					}
				}
				if name == "SET" && used["NX"] && used["GET"] {
					bad = append(bad, l.at(c.line, "SET with NX and GET is an error before Redis 7.0"))
				}
			}
			named := map[luaToken]bool{} // where local call = redis.call stands
			for _, a := range l.assignments() {
				if len(a.value) == 3 {
					named[a.value[0]] = true
				}
			}
			for i := range l.tokens {
				if l.redisCall(i) && !l.is(i+3, "(") && !named[l.tokens[i]] {
					bad = append(bad, l.at(l.tokens[i].line, "redis.call is handed on: call it here, or name it with local call = redis.call"))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"unknown", luaBody("return redis.call('BITFIELD', KEYS[1])"), "acquire.lua:6: BITFIELD is not among"},
		{"pcall, lower case", luaBody("return redis.pcall(\n'sintercard', 1, KEYS[1])"), "SINTERCARD is not among"},
		{"alias", luaBody("local call = redis.call\nreturn call('LMPOP', 1, KEYS[1])"), "acquire.lua:7: LMPOP is not among"},
		{"alias of a prelude", map[string]string{
			"lock/prelude.lua": "-- Prelude: names\nlocal call, format = redis.call, string.format\n",
			"lock/acquire.lua": good["lock/acquire.lua"] + "return call('LMPOP', 1, KEYS[1])\n",
		}, "acquire.lua:11: LMPOP is not among"},
		{"read", luaIs(strings.Replace(good["lock/acquire.lua"], "token: the same", "read: the same", 1)), "SET in a script whose header says"},
		{"flag", luaBody("return redis.call('EXPIRE', KEYS[1], 1, 'NX')"), "EXPIRE has no flag NX"},
		{"flags together", luaBody("return redis.call('SET', KEYS[1], 1, 'NX', 'GET')"), "before Redis 7.0"},
		{"wrapped", luaBody("local function write(command, key) redis.call(command, key) end\nwrite('LMPOP', KEYS[1])"), "acquire.lua:7: LMPOP is not among"},
		{"computed", luaBody("return redis.call(ARGV[1], KEYS[1])"), "no literal"},
		{"handed on", luaBody("return pcall(redis.call, 'GET', KEYS[1])"), "handed on"},
	},
}

// What differs between servers, or loses digits.
var luaLibraries = rule{
	name: "Lua of scripts",
	judge: func(t *tree) (bad []string) {
		say := map[string]string{
			"cmsgpack": "not in miniredis: use cjson or string.format", "struct": "not in miniredis: use string.byte and string.char",
			"bit": "not in miniredis: use arithmetic below 2^53", "os": "not in Redis: use redis.call('TIME')",
			"io": "not in Redis", "debug": "not in Redis", "require": "not in Redis", "loadstring": "not for scripts", "_G": "no globals",
			"tostring": "loses digits above 1e14 on Redis and not on miniredis: string.format('%d', n)",
			"random":   "gives every script the same numbers: pass one in ARGV",
		}
		for _, l := range t.lua {
			for i, tok := range l.tokens {
				if why, ok := say[tok.text]; ok && !tok.str && (tok.text == "random" || !l.is(i-1, ".")) && !l.is(i+1, "=") {
					bad = append(bad, l.at(tok.line, "%s: %s", tok.text, why))
				}
				if l.is(i, "redis", ".") && i+2 < len(l.tokens) &&
					!slices.Contains([]string{"call", "pcall", "error_reply", "status_reply", "sha1hex"}, l.tokens[i+2].text) {
					bad = append(bad, l.at(tok.line, "redis.%s is not on every server", l.tokens[i+2].text))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"cmsgpack", luaBody("return cmsgpack.pack(1)"), "acquire.lua:6: cmsgpack"},
		{"struct", luaBody("return struct.pack('>I', 1)"), "struct: not in miniredis"},
		{"bit", luaBody("return bit.band(1, 3)"), "bit: not in miniredis"},
		{"tostring", luaBody("return tostring(now)"), "tostring: loses digits"},
		{"log", luaBody("redis.log(1, 'x')"), "redis.log"},
	},
}

// keyAt is where a command's first key stands among its arguments, if not at 1;
// 0 is nowhere.
var keyAt = map[string]int{"TIME": 0, "PUBLISH": 0, "XGROUP": 2}

// A key that is made from ARGV is one that Redis Cluster never saw, perhaps of
// another slot. A key made from others is Derived, and the header says so.
//
// It follows variables by name, also those of a prelude; it does not follow
// function arguments, nor tables that are filled in a loop.
var luaKeys = rule{
	name: "keys of scripts",
	judge: func(t *tree) (bad []string) {
		for _, l := range t.lua {
			for _, c := range l.calls {
				name, ok := c.command()
				if !ok {
					continue
				}
				at, ok := keyAt[name]
				if !ok {
					at = 1
				}
				if at == 0 || at >= len(c.args) {
					continue
				}
				all := l.reach(c.args[at])
				if has(all, "ARGV") {
					bad = append(bad, l.at(c.line, "the key of %s comes from ARGV: build it in Go and pass it in KEYS", name))
				} else if d := l.header["Derived"]; has(all, "..") && (d == "" || strings.HasPrefix(d, "none")) && l.header["Prelude"] == "" {
					bad = append(bad, l.at(c.line, "the key of %s is made here: name it under Derived, with the tag of KEYS[1]", name))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"directly", luaBody("return redis.call('GET', ARGV[1])"), "acquire.lua:6: the key of GET comes from ARGV"},
		{"concatenated", luaBody("return redis.call('GET', KEYS[1] .. ARGV[1])"), "comes from ARGV"},
		{"through a local", luaBody("local k = KEYS[1] .. ':' .. ARGV[1]\nreturn redis.call('GET', k)"), "comes from ARGV"},
		{"formatted", luaBody("local k = string.format('%s:%s', KEYS[1], ARGV[1])\nreturn redis.call('GET', k)"), "comes from ARGV"},
		{"among others", luaBody("local k, v = ARGV[1], KEYS[1]\nreturn redis.call('SET', k, v)"), "comes from ARGV"},
		{"undeclared", luaBody("local k = KEYS[1] .. ':x'\nreturn redis.call('GET', k)"), "name it under Derived"},
	},
}

// go-redis sends a script again when its reply is lost; internal/script does not.
var scriptsRunSafely = rule{
	name: "scripts run through internal/script",
	judge: func(t *tree) (bad []string) {
		for _, f := range t.library() {
			if f.dir == "internal/script" || !slices.Contains(f.paths, goRedis) {
				continue
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.SelectorExpr:
					if slices.Contains([]string{"Eval", "EvalSha", "EvalRO", "EvalShaRO", "ScriptLoad", "NewScript"}, x.Sel.Name) {
						bad = append(bad, t.at(n, "%s: go-redis may run it twice behind your back; use internal/script", x.Sel.Name))
					}
				case *ast.BasicLit:
					if s, err := strconv.Unquote(x.Value); err == nil && slices.Contains([]string{"eval", "evalsha"}, strings.ToLower(s)) {
						bad = append(bad, t.at(n, "%s: go-redis may run it twice behind your back; use internal/script", fmt.Sprintf("%q", s)))
					}
				}
				return true
			})
		}
		return bad
	},
	broken: []control{
		{"NewScript", map[string]string{"lock/a.go": "package lock\nimport \"" + goRedis + "\"\nvar s = redis.NewScript(acquire)\n"}, "lock/a.go:3: NewScript"},
		{"Eval", map[string]string{"lock/a.go": "package lock\nimport \"" + goRedis + "\"\nfunc f(c redis.Cmdable) { c.Eval(ctx, acquire, nil) }\n"}, "Eval"},
		{"Do", map[string]string{"lock/a.go": "package lock\nimport \"" + goRedis + "\"\nfunc f(c *redis.Client) { c.Do(ctx, \"EVALSHA\") }\n"}, "EVALSHA"},
	},
}
