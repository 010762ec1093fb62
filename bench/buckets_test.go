//go:build unix

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/stock"
)

// BenchmarkStockBuckets sells one SKU on a Cluster. Where client and masters share
// two cores wall time cannot scale; what tells is us-server/op/master, the time
// in which the busiest master executed commands, by the orders of all: its inverse
// is what a cluster of real machines could sell. us-redis-cpu/op/master is the CPU time
// of its process, network and all, which other work on the machine does not stretch. There are 64 buyers for each bucket, as
// many as StockDeduct has for its one: fewer would make smaller batches and dearer orders.
//
// Rows "drained" have all stock in one bucket when they begin, so that every other
// home has to fetch what it sells; "scarce" has as many units as orders, down to the
// last.
func BenchmarkStockBuckets(b *testing.B) {
	for _, masters := range []int{1, 3} {
		c := redistest.Cluster(b, masters, 0)
		for _, row := range []struct {
			name    string
			buckets int
		}{{"even", 1}, {"even", 3}, {"even", 6}, {"drained", 3}, {"scarce", 3}} {
			name := "spillway"
			if row.name != "even" {
				name += "-" + row.name
			}
			b.Run(fmt.Sprintf("%s/masters=%d,buckets=%d", name, masters, row.buckets), func(b *testing.B) {
				sellHot(b, c, row.buckets, row.name)
			})
		}
	}
}

// sale numbers the activities, which share a cluster.
var sale atomic.Int64

func sellHot(b *testing.B, c *redistest.ClusterProcs, buckets int, stocked string) {
	ctx := b.Context()
	rdb := c.Client(func(o *redis.ClusterOptions) { o.PoolSize = poolSize })
	a, err := stock.New(rdb, fmt.Sprint("sale", sale.Add(1)), stock.Options{Buckets: buckets})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = a.Drop(ctx) }()
	left := map[string]int64{"even": units, "drained": 0, "scarce": int64(b.N)}[stocked]
	if err := a.Load(ctx, map[string]int64{sku: left}); err != nil {
		b.Fatal(err)
	}
	if stocked == "drained" {
		if _, err := a.Restock(ctx, "all", stock.Item{SKU: sku, Qty: units}); err != nil {
			b.Fatal(err)
		}
	}
	nodes := make([]*redis.Client, 0, 3)
	for _, p := range c.Nodes() {
		node := redis.NewClient(&redis.Options{Addr: p.Addr()})
		defer node.Close()
		if err := node.ConfigResetStat(ctx).Err(); err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	_, _, idle, err := executed(ctx, nodes)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	latencies, err := drive(64*buckets, b.N, func(i int) error {
		_, err := a.Deduct(ctx, order(i))
		for errors.Is(err, stock.ErrContended) { // "scarce", on a machine that has other things to do
			_, err = a.Deduct(ctx, order(i))
		}
		return err
	})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	all, busiest, cpu, err := executed(ctx, nodes)
	if err != nil {
		b.Fatal(err)
	}
	most := 0.0
	for i := range cpu {
		most = max(most, cpu[i]-idle[i])
	}
	n := float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(latencies.quantile(0.99).Seconds()*1e3, "p99-ms")
	b.ReportMetric(all/n, "us-server/op")
	b.ReportMetric(busiest/n, "us-server/op/master")
	b.ReportMetric(most*1e6/n, "us-redis-cpu/op/master")
	b.ReportMetric(float64(a.Stats().Transfers), "transfers")
	level(b, a, stock.Level{Left: max(left, map[bool]int64{true: units}[stocked == "drained"]) - int64(b.N), Sold: int64(b.N)})
}

// executed is the time that scripts took on all nodes and on the one where they took
// the longest, in microseconds, and the CPU time of each node, in seconds.
func executed(ctx context.Context, nodes []*redis.Client) (all, busiest float64, cpu []float64, err error) {
	for _, node := range nodes {
		r, err := ask(ctx, node)
		if err != nil {
			return 0, 0, nil, err
		}
		all += r.usec["evalsha"]
		busiest = max(busiest, r.usec["evalsha"])
		cpu = append(cpu, r.cpu)
	}
	return all, busiest, cpu, nil
}
