package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A machine is where and with what the rounds ran.
type machine struct {
	date                  time.Time
	cpu                   string
	cpus                  int
	redis                 string
	modules               []string
	commit                string
	loadBefore, loadAfter string
	benchtime             string
	count                 int
}

func describe(ctx context.Context, benchtime string, count int) machine {
	output := func(name string, args ...string) string {
		text, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return "unknown (" + name + ": " + err.Error() + ")"
		}
		return strings.TrimSpace(string(text))
	}
	m := machine{
		date: time.Now(), cpu: runtime.GOARCH, cpus: runtime.NumCPU(), benchtime: benchtime, count: count,
		redis: output("redis-server", "--version"), loadBefore: loadAverage(),
		commit: output("git", "rev-parse", "--short", "HEAD"),
	}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
				m.cpu = strings.TrimSpace(value)
				break
			}
		}
		_ = f.Close()
	}
	if _, after, ok := strings.Cut(m.redis, "v="); ok {
		m.redis, _, _ = strings.Cut(after, " ")
	}
	list := output("go", "list", "-m", "-f", "{{if not (or .Indirect .Main .Replace)}}{{.Path}} {{.Version}}{{end}}", "all")
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line != "" {
			m.modules = append(m.modules, line)
		}
	}
	return m
}

// loadAverage is the number of processes that wanted a CPU in the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// A column of the tables is a metric, and what it is divided by.
type column struct {
	title, unit string
	by          float64
}

var columns = []column{
	{"loads", "loads/op", 1},
	{"early ms", "early-ms", 1},
	{"p50 ms", "p50-ms", 1},
	{"p99 ms", "p99-ms", 1},
	{"client CPU µs", "CPU-ns/op", 1000},
	{"Redis CPU µs", "us-redis-cpu/op", 1},
	{"in commands µs", "us-server/op", 1},
	{"ops a call", "ops/call", 1},
	{"allocs", "allocs/op", 1},
	{"B/order", "B/order", 1},
	{"B/job", "B/job", 1},
	{"B/object", "B/object", 1},
	{"peak by mean", "peak/mean", 1},
	{"needless moves %", "needless-%", 1},
	{"requests/op", "requests/op", 1},
	{"max/min", "max/min", 1},
	{"p50 µs", "p50-us", 1},
}

func markdown(s *suite, m machine, charts map[string]string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Results")
	p("")
	p("Written by `go run -C bench ./report`; README.md says how to read it.")
	p("Each figure is the median of %d rounds of %s a row; a ratio is the median of the", m.count, m.benchtime)
	p("ratios within each round. All rows share one Redis, one process and one client setting.")
	p("")
	p("| | |")
	p("|---|---|")
	p("| Date | %s |", m.date.UTC().Format("2 January 2006, 15:04 MST"))
	p("| Commit | %s |", m.commit)
	p("| CPU | %s, %d cores for client and server together |", m.cpu, m.cpus)
	p("| Go | %s %s/%s |", strings.TrimPrefix(runtime.Version(), "go"), runtime.GOOS, runtime.GOARCH)
	p("| Redis | %s, no persistence |", m.redis)
	p("| Modules | %s |", strings.Join(m.modules, ", "))
	p("| Load average before, after | %s, %s%s |", m.loadBefore, m.loadAfter, busy(m))
	p("")
	p("## Targets")
	p("")
	p("| Target | Measured | |")
	p("|---|---|---|")
	for _, t := range targets {
		got, met, known := t.judge(s)
		switch {
		case !known:
			p("| %s | | not run |", t)
		case met:
			p("| %s | %s | met |", t, figure(got))
		default:
			p("| %s | %s | **missed** |", t, figure(got))
		}
	}
	for _, rows := range s.groups() {
		p("")
		p("## %s", rows[0].group())
		p("")
		if file := charts[rows[0].group()]; file != "" {
			p("![%s, %s](charts/%s)", rows[0].group(), about(rows).title, file)
			p("")
		}
		table(p, rows)
	}
	return b.String()
}

// table compares rows with the one named spillway, in the columns that any has.
func table(p func(string, ...any), rows []*row) {
	head, rule := "| |", "|---|"
	speed := slices.ContainsFunc(rows, func(r *row) bool { return len(r.metrics["ops/s"]) > 0 })
	if speed {
		head, rule = "| | ops/s | spillway is |", "|---|---:|---:|"
	}
	columns := slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return !slices.ContainsFunc(rows, func(r *row) bool { return len(r.metrics[c.unit]) > 0 })
	})
	for _, c := range columns {
		head += " " + c.title + " |"
		rule += "---:|"
	}
	p("%s", head)
	p("%s", rule)
	var own *row
	for _, r := range rows {
		if r.impl == "spillway" {
			own = r
		}
	}
	for _, r := range rows {
		line := "| " + r.impl + " |"
		if speed {
			line += " "
			if ops, ok := r.median("ops/s"); ok {
				line += figure(ops) + " "
			}
			line += "|"
			if q, ok := ratio(own, r, "ops/s"); ok && r != own {
				line += " " + figure(q) + " ×"
			}
			line += " |"
		}
		for _, c := range columns {
			if v, ok := r.median(c.unit); ok {
				line += " " + figure(v/c.by) + " |"
			} else {
				line += " |"
			}
		}
		p("%s", line)
	}
}

// busy is a remark where other work ran when the rounds began.
func busy(m machine) string {
	load, err := strconv.ParseFloat(m.loadBefore, 64)
	if err != nil || load < float64(m.cpus)/2 {
		return ""
	}
	return ": **the machine was busy with other work; ratios hold better than figures**"
}

// figure writes v with three digits that mean something.
func figure(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + " M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 0, 64) + " k"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'f', 2, 64) + " k"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v > 0 && v < 0.01:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
