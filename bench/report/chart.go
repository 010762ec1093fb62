package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeCharts draws one chart a group into dir, and returns the files' names by
// group.
func writeCharts(s *suite, dir string) (map[string]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, rows := range s.groups() {
		group := rows[0].group()
		name := strings.NewReplacer("/", "-", "=", "-").Replace(group) + ".svg"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(chart(group, rows)), 0o644); err != nil {
			return nil, err
		}
		files[group] = name
	}
	return files, nil
}

// style colours a chart for light pages, and for dark ones where the reader's
// system asks for them. The plain attributes of the shapes serve viewers that do
// not know style sheets.
const style = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .own { fill: #0969da } .peer { fill: #8c959f } .axis { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .own { fill: #4493f8 } .peer { fill: #6e7681 } .axis { stroke: #3d444d }
  }`

// chart draws what the rows are about as horizontal bars; Spillway's stand out.
func chart(title string, rows []*row) string {
	const (
		width, labels, figures = 720, 190, 70
		top, step, thick       = 44, 28, 18
	)
	what := about(rows)
	most := 0.0
	for _, r := range rows {
		v, _ := r.median(what.unit)
		most = max(most, v)
	}
	height := top + step*len(rows) + 8
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s\n</style>\n", escape(title), style)
	fmt.Fprintf(&b, `<text class="title" x="8" y="22">%s: %s</text>`+"\n", escape(title), what.title)
	for i, r := range rows {
		v, _ := r.median(what.unit)
		y := top + i*step
		class := "peer"
		if strings.HasPrefix(r.impl, "spillway") {
			class = "own"
		}
		long := 1.0
		if most > 0 {
			long = max(1, v/most*(width-labels-figures))
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labels-10, y+14, escape(r.impl))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", class, labels, y, long, thick)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", labels+long+8, y+14, figure(v))
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n</svg>\n", labels, top-6, labels, height-8)
	return b.String()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}
