// Command report runs the benchmarks of this module several times and writes
// RESULTS.md with charts: medians, ratios, and which targets were met.
//
//	go run -C bench ./report
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	count := flag.Int("count", 5, "rounds; each figure is the median over them")
	bench := flag.String("bench", ".", "which benchmarks, as of go test -bench")
	benchtime := flag.String("benchtime", "1s", "how long each row runs in a round, as of go test -benchtime")
	out := flag.String("out", "RESULTS.md", "file to write; charts go into charts/ beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := report(ctx, *count, *bench, *benchtime, *out); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		stop()
		os.Exit(1)
	}
}

func report(ctx context.Context, count int, bench, benchtime, out string) error {
	if count < 1 {
		return fmt.Errorf("-count %d, want at least 1", count)
	}
	dir, err := os.MkdirTemp("", "spillway-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "bench.test")
	fmt.Fprintln(os.Stderr, "compiling")
	if text, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c: %w\n%s", err, text)
	}

	// Once through with one operation a row: counts the rows, and a row that cannot
	// run says so now.
	var s suite
	total := 0
	var trial suite
	err = round(ctx, binary, bench, "1x", func(line string) {
		if trial.add(line) != nil {
			total++
		}
	})
	if err != nil {
		return err
	}
	if total == 0 {
		return fmt.Errorf("no benchmark matches -bench %s", bench)
	}
	m := describe(ctx, benchtime, count)
	p := newProgress(total * count)
	for i := range count {
		// A round is a run of its own, so that a machine that is slow for a while is
		// slow for all rows of one round and not for all rounds of one row.
		err := round(ctx, binary, bench, benchtime, func(line string) {
			if r := s.add(line); r != nil {
				p.step(fmt.Sprintf("round %d of %d, %s", i+1, count, r.name()))
			}
		})
		if err != nil {
			return err
		}
	}
	p.end()
	m.loadAfter = loadAverage()
	charts, err := writeCharts(&s, filepath.Join(filepath.Dir(out), "charts"))
	if err != nil {
		return err
	}
	text := markdown(&s, m, charts)
	if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "wrote %s\n", out)
	return nil
}

// round runs the benchmarks once and gives each line of a result to each.
func round(ctx context.Context, binary, bench, benchtime string, each func(line string)) error {
	cmd := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench="+bench, "-test.benchtime="+benchtime)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		each(lines.Text())
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		return fmt.Errorf("benchmarks: %w\n%s", err, said.String())
	}
	return nil
}

// A progress is a bar on standard error if that is a terminal, and a line now and then elsewhere.
type progress struct {
	bar         bool
	done, total int
	began       time.Time
	last        time.Time
}

func newProgress(total int) *progress {
	info, err := os.Stderr.Stat()
	return &progress{bar: err == nil && info.Mode()&os.ModeCharDevice != 0, total: total, began: time.Now()}
}

func (p *progress) step(what string) {
	p.done++
	left := time.Since(p.began) / time.Duration(p.done) * time.Duration(p.total-p.done)
	if p.bar {
		const width = 30
		full := width * p.done / p.total
		fmt.Fprintf(os.Stderr, "\r\033[K[%s%s] %d/%d, %s left, %s", strings.Repeat("#", full),
			strings.Repeat(".", width-full), p.done, p.total, left.Round(time.Second), what)
		return
	}
	if time.Since(p.last) > 10*time.Second {
		p.last = time.Now()
		fmt.Fprintf(os.Stderr, "%d/%d, %s left, %s\n", p.done, p.total, left.Round(time.Second), what)
	}
}

func (p *progress) end() {
	if p.bar {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
	fmt.Fprintf(os.Stderr, "%d rows in %s\n", p.total, time.Since(p.began).Round(time.Second))
}
