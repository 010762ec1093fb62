package snowflake_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/idgen/snowflake"
)

func Example() {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		panic(err)
	}
	defer m.Close()
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	defer rdb.Close()
	ctx := context.Background()

	worker, err := snowflake.LeaseWorker(ctx, rdb, snowflake.Options{Name: "orders", TTL: 10 * time.Second})
	switch {
	case errors.Is(err, snowflake.ErrNoWorker): // more processes than worker ids
	case errors.Is(err, snowflake.ErrClock): // more than a minute off
	case errors.Is(err, snowflake.ErrUnavailable), errors.Is(err, snowflake.ErrUnknown): // try again
	case errors.Is(err, snowflake.ErrInvalid):
		panic(err)
	}
	defer worker.Close(ctx)

	// Classic and Dense use 63 bits, JSON 53.
	for _, l := range []snowflake.Layout{snowflake.Classic, snowflake.Dense, snowflake.JSON} {
		fmt.Println(l.TimeBits+l.WorkerBits+l.SequenceBits, l.End().Year())
	}
	ids, err := snowflake.New(snowflake.JSON, worker)
	if err != nil {
		panic(err)
	}
	a, err := ids.Next(ctx)
	if errors.Is(err, snowflake.ErrClosed) || errors.Is(err, snowflake.ErrExhausted) {
		panic(err)
	}
	b, ok := ids.TryNext()
	at, who, _ := snowflake.JSON.Split(b)
	fmt.Println(a < b, b < 1<<53, ok, time.Since(at) < time.Minute, who == worker.ID())
	fmt.Println(ids.Stats().Worker == worker.ID())
	// Output:
	// 63 2094
	// 63 2094
	// 53 2046
	// true true true true true
	// true
}
