package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

const output = `goos: linux
BenchmarkStockDeduct/spillway/goroutines=64-2  100 5000 ns/op 120.0 B/order 200000 ops/s
BenchmarkStockDeduct/spillway-unmerged/goroutines=64-2  100 5000 ns/op 50000 ops/s
BenchmarkStockSoldOut/spillway-2  100 100 ns/op 9000000 ops/s
BenchmarkStockDeduct/spillway/goroutines=64-2  100 5000 ns/op 140.0 B/order 100000 ops/s
BenchmarkStockDeduct/spillway-unmerged/goroutines=64-2  100 5000 ns/op 100000 ops/s
BenchmarkStockDeduct/spillway/goroutines=64-2  100 5000 ns/op 210.0 B/order 180000 ops/s
BenchmarkStockDeduct/spillway-unmerged/goroutines=64-2  100 5000 ns/op 60000 ops/s
PASS
`

func measured() *suite {
	s := &suite{}
	for line := range strings.Lines(output) {
		s.add(line)
	}
	return s
}

func TestMediansAndRatios(t *testing.T) {
	s := measured()
	if len(s.rows) != 3 || len(s.groups()) != 2 {
		t.Fatalf("%d rows in %d groups, want 3 in 2", len(s.rows), len(s.groups()))
	}
	own, other := s.row("StockDeduct", "spillway", "goroutines=64"), s.row("StockDeduct", "spillway-unmerged", "goroutines=64")
	if v, _ := own.median("B/order"); v != 140 {
		t.Errorf("median B/order %v, want 140", v)
	}
	// 4, 1 and 3 in the rounds: the ratio of the medians would also be 3, of the means not.
	if q, _ := ratio(own, other, "ops/s"); q != 3 {
		t.Errorf("ratio %v, want 3", q)
	}
	if _, ok := ratio(own, nil, "ops/s"); ok {
		t.Error("a ratio to a row that did not run")
	}
	if v, _ := median([]float64{1, 4, 2, 3}); v != 2.5 {
		t.Errorf("median of an even number %v, want 2.5", v)
	}
}

// Not every row has a speed, and some leave the time to go test.
func TestWhatRowsAreAbout(t *testing.T) {
	s := &suite{}
	for line := range strings.Lines(`BenchmarkStock
BenchmarkCacheHit/spillway-2  	 100 50.0 ns/op 0 allocs/op
BenchmarkStampede/spillway-2  	 100 50.0 ns/op 1.000 loads/op
BenchmarkLatency/spillway-2   	 1 1.5 p99-ms
`) {
		s.add(line)
	}
	want := []string{"operations a second", "loads", "milliseconds late, 99th percentile"}
	for i, rows := range s.groups() {
		if got := about(rows).title; got != want[i] {
			t.Errorf("%s is about %s, want %s", rows[0].name(), got, want[i])
		}
	}
	if v, _ := s.row("CacheHit", "spillway", "").median("ops/s"); v != 2e7 {
		t.Errorf("50 ns an operation are %v a second, want 20 million", v)
	}
	text := markdown(s, machine{count: 1}, nil)
	for _, want := range []string{"| | ops/s |", "| spillway | 20.00 M | |", "| | p99 ms |\n", "| spillway | 1.50 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("RESULTS.md lacks %q:\n%s", want, text)
		}
	}
}

func TestTargets(t *testing.T) {
	s := measured()
	of := target{work: "StockDeduct", impl: "spillway", param: "goroutines=64", than: "spillway-unmerged", unit: "ops/s"}
	for _, c := range []struct {
		atLeast float64
		met     bool
	}{{3, true}, {3.01, false}} {
		of.atLeast = c.atLeast
		if got, met, known := of.judge(s); got != 3 || met != c.met || !known {
			t.Errorf("at least %v: got %v, met %v, known %v", c.atLeast, got, met, known)
		}
	}
	bound := target{work: "StockDeduct", impl: "spillway", param: "goroutines=64", unit: "B/order", atMost: 139}
	if _, met, known := bound.judge(s); met || !known {
		t.Errorf("140 B met a bound of 139")
	}
	if _, met, known := (target{work: "StockDeduct", impl: "none", unit: "ops/s"}).judge(s); met || known {
		t.Error("a row that did not run was judged")
	}
	text := markdown(s, machine{count: 3}, nil)
	for _, want := range []string{
		"spillway-unmerged | 3.00 | met |", "not run", "| spillway-unmerged | 60 k | 3.00 × |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("RESULTS.md lacks %q:\n%s", want, text)
		}
	}
}

func TestChartIsXML(t *testing.T) {
	for _, rows := range measured().groups() {
		d := xml.NewDecoder(strings.NewReader(chart("a <b> & c", rows)))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
