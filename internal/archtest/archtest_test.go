package archtest

import (
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// A rule is one thing that DESIGN.md asks for and a program can check.
type rule struct {
	name   string
	judge  func(*tree) []string // what is wrong, and what to do about it
	broken []control
}

// A control is the good tree with some files replaced or added. The rule must
// report something that contains want.
type control struct {
	name  string
	files map[string]string
	want  string
}

var rules = []rule{
	fileLength, fileNames, leftovers, goMod,
	ownImports, moduleImports, testDrivers,
	surfaceSize, docComments, shownInExamples, constructors, signatures, noLeaks,
	packageDoc, links, namedTests, commonErrors, errorPrefix,
	contextOrigin, contextStored, wrappedErrors, silent, sleepless,
	testSleeps, skipReasons,
	luaHeader, luaEmbedded, luaOnlyInFiles, luaCommands, luaLibraries, luaKeys, scriptsRunSafely,
}

func TestRules(t *testing.T) {
	// Files opened through os are what the test cache watches; so are the
	// directories, for files that are new.
	project, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, finding := range r.judge(project) {
				t.Error(finding)
			}
		})
	}
}

// A rule that cannot fail is no rule: each finds nothing in the good tree and
// what was broken in each of its controls.
func TestRulesCatchWhatTheyForbid(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if findings := r.judge(with(t, nil)); len(findings) > 0 {
				t.Errorf("the good tree breaks the rule: %q", findings)
			}
			if len(r.broken) == 0 {
				t.Error("the rule has no negative control")
			}
			for _, c := range r.broken {
				findings := r.judge(with(t, c.files))
				if !strings.Contains(strings.Join(findings, "\n"), c.want) {
					t.Errorf("%s: want a finding with %q, got %q", c.name, c.want, findings)
				}
			}
		})
	}
}

// with returns the good tree with files put over it; an empty text removes a file.
func with(t *testing.T, files map[string]string) *tree {
	t.Helper()
	all := maps.Clone(good)
	maps.Copy(all, files)
	fsys := fstest.MapFS{}
	for name, text := range all {
		if text != "" {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}
