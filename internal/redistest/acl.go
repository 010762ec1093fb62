package redistest

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Limited returns a new server, and a client of it whose user may run what stands after
// "Commands, for an ACL:" in the doc.go of the package under test, on keys and channels
// of that package, and nothing else. A test in which the server refused it something
// fails, also where the package got along without.
func Limited(t testing.TB) (*Proc, *redis.Client) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	return limited(t, string(doc))
}

func limited(t testing.TB, doc string) (*Proc, *redis.Client) {
	t.Helper()
	commands, err := documentedCommands(doc)
	if err != nil {
		t.Fatal(err)
	}
	name := packageClause.FindStringSubmatch(doc)
	if name == nil {
		t.Fatal("redistest: doc.go has no package clause")
	}
	p := Server(t)
	own := "*:" + name[1] + "[0-9]:{*" // see internal/key
	// What a client says when it connects is beside the package.
	rules := []string{"on", "nopass", "~" + own, "&" + own, "-@all", "+hello", "+client", "+ping"}
	for _, c := range commands {
		rules = append(rules, "+"+c)
	}
	all := p.Client()
	if err := all.ACLSetUser(t.Context(), "limited", rules...).Err(); err != nil {
		t.Fatal(err)
	}
	rdb := p.Client(func(o *redis.Options) { o.Username, o.Password = "limited", "any" })
	if err := rdb.Keys(t.Context(), "*").Err(); !redis.HasErrorPrefix(err, "NOPERM") {
		t.Fatalf("redistest: the server does not look at the list: %v", err)
	}
	if err := all.ACLLogReset(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		refused, err := all.ACLLog(context.WithoutCancel(t.Context()), 10).Result()
		if err != nil {
			t.Error(err)
		}
		for _, r := range refused {
			t.Errorf("the commands that doc.go lists are not enough: %s of %s refused (%s)", r.Reason, r.Object, r.Context)
		}
	})
	return p, rdb
}

var (
	aclParagraph  = regexp.MustCompile(`(?s)Commands,\s+(?:// )?for\s+(?:// )?an\s+(?:// )?ACL:(.*?)\n//\n`)
	packageClause = regexp.MustCompile(`(?m)^package (\w+)$`)
	aclCommand    = regexp.MustCompile(`\b(CONFIG GET|[A-Z]{3,})\b`)
)

func documentedCommands(doc string) (commands []string, err error) {
	m := aclParagraph.FindStringSubmatch(doc)
	if m == nil {
		return nil, errors.New(`redistest: doc.go does not say "Commands, for an ACL: …"`)
	}
	for _, c := range aclCommand.FindAllString(m[1], -1) {
		c = strings.ReplaceAll(strings.ToLower(c), " ", "|")
		if !slices.Contains(commands, c) {
			commands = append(commands, c)
		}
	}
	return commands, nil
}
