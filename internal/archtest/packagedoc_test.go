package archtest

import (
	"fmt"
	"path"
	"strings"
)

// headings are what every package comment answers, in this order, so that nine
// packages can be compared and none leaves out what it cannot do.
var headings = []string{
	"What it promises",
	"What it does not",
	"Redis keys it writes",
	"When Redis is slow, down or fails over",
	"Cost per call",
}

var packageDoc = rule{
	name: "package comment",
	judge: func(t *tree) (bad []string) {
		for dir, files := range t.public() {
			doc := ""
			for _, f := range files {
				if path.Base(f.path) == "doc.go" && f.syntax.Doc != nil {
					doc = f.syntax.Doc.Text()
				}
			}
			if doc == "" {
				bad = append(bad, fmt.Sprintf("%s has no doc.go with a package comment", dir))
				continue
			}
			var got []string
			filled := map[string]bool{}
			for line := range strings.Lines(doc) {
				line = strings.TrimSpace(line)
				if h, ok := strings.CutPrefix(line, "# "); ok {
					got = append(got, h)
				} else if len(got) > 0 && line != "" {
					filled[got[len(got)-1]] = true
				}
			}
			next := 0
			for _, h := range got {
				if next < len(headings) && h == headings[next] {
					next++
				}
			}
			if next < len(headings) {
				bad = append(bad, fmt.Sprintf("%s/doc.go lacks the heading %q, in its place among: # %s", dir, headings[next], strings.Join(headings, ", # ")))
			}
			for _, h := range headings[:next] {
				if !filled[h] {
					bad = append(bad, fmt.Sprintf("%s/doc.go says nothing under %q; if there is nothing, say that", dir, h))
				}
			}
		}
		return bad
	},
	broken: []control{
		{"no doc.go", map[string]string{"lock/doc.go": ""}, "lock has no doc.go"},
		{"missing", map[string]string{"lock/doc.go": strings.Replace(good["lock/doc.go"], "# Cost per call", "# Costs", 1)}, `lacks the heading "Cost per call"`},
		{"order", map[string]string{"lock/doc.go": strings.Replace(good["lock/doc.go"], "# What it promises", "# What it does not", 1)}, `lacks the heading "What it promises"`},
		{"empty", map[string]string{"lock/doc.go": strings.Replace(good["lock/doc.go"], "One round trip.", "", 1)}, `nothing under "Cost per call"`},
	},
}
