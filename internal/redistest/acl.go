package redistest

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Limited returns a new server, and a client of it whose user may run what stands after
// "Commands, for an ACL:" in the doc.go of the package under test, and nothing else.
func Limited(t testing.TB) (*Proc, *redis.Client) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	commands, err := documentedCommands(string(doc))
	if err != nil {
		t.Fatal(err)
	}
	p := Server(t)
	// What a client says when it connects is beside the package.
	rules := []string{"on", "nopass", "~*", "&*", "-@all", "+hello", "+client", "+ping"}
	for _, c := range commands {
		rules = append(rules, "+"+c)
	}
	if err := p.Client().ACLSetUser(t.Context(), "limited", rules...).Err(); err != nil {
		t.Fatal(err)
	}
	return p, p.Client(func(o *redis.Options) { o.Username, o.Password = "limited", "any" })
}

var (
	aclParagraph = regexp.MustCompile(`(?s)Commands,\s+(?:// )?for\s+(?:// )?an\s+(?:// )?ACL:(.*?)\n//\n`)
	aclCommand   = regexp.MustCompile(`\b(CONFIG GET|[A-Z]{3,})\b`)
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
