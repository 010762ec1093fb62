// Package check is what must be true of the shop, whatever was killed: invariants that
// read Redis and SQL and change nothing.
//
// While the shop is at work, SQL is a moment behind Redis, and neither is read at one
// moment: what looks wrong is looked at again, and reported if it stays.
package check

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/pk"
	"github.com/spillway-go/spillway/examples/liveshop/internal/rain"
)

// A Verdict is what was found of one invariant. One that could not be looked at is not OK,
// but not known to be broken either.
type Verdict struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Unknown bool   `json:"unknown,omitempty"`
	Detail  string `json:"detail"`
}

// An invariant is something that must be true. look returns what contradicts it, one
// sentence each, and in detail how much it has looked at.
type invariant struct {
	name string
	look func(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error)
}

// invariants are all there are; each part of the shop has a file with its own.
var invariants = []invariant{
	{"stock adds up", stockAddsUp},
	{"an order ends once", ordersEndOnce},
	{"SQL is as Redis", sqlIsRedis},
	{"money adds up", moneyAddsUp},
	{"what is paid for is sold", paidIsSold},
	{"coupons are spent once", couponsSpentOnce},
	{"packets add up", rain.Check},
	{"one win a PK", pk.Check},
	{"frames add up", im.Check},
}

const (
	looks = 5 // at something that looks wrong
	again = 400 * time.Millisecond
	shown = 5 // contradictions in a verdict
)

// All judges every invariant. The error is not nil where one could not be looked at;
// its verdict then says so too.
func All(ctx context.Context, env *infra.Env) ([]Verdict, error) {
	verdicts, errs := make([]Verdict, len(invariants)), make([]error, len(invariants))
	var wg sync.WaitGroup
	for i, inv := range invariants {
		wg.Go(func() { verdicts[i], errs[i] = inv.judge(ctx, env) })
	}
	wg.Wait()
	return verdicts, errors.Join(errs...)
}

func (inv invariant) judge(ctx context.Context, env *infra.Env) (Verdict, error) {
	v := Verdict{Name: inv.name}
	for n := 1; ; n++ {
		wrong, detail, err := inv.look(ctx, env)
		if err == nil && len(wrong) == 0 {
			v.OK, v.Detail = true, detail
			return v, nil
		}
		if err == nil && n < looks {
			select {
			case <-time.After(again):
				continue
			case <-ctx.Done():
				err = fmt.Errorf("again: %w", ctx.Err())
			}
		}
		if err != nil {
			v.Unknown, v.Detail = true, "could not be looked at: "+err.Error()
			return v, fmt.Errorf("check %q: %w", inv.name, err)
		}
		if len(wrong) > shown {
			wrong = append(wrong[:shown:shown], fmt.Sprintf("and %d more", len(wrong)-shown))
		}
		v.Detail = strings.Join(wrong, "; ")
		return v, nil
	}
}

// query calls each for every row. each scans it.
func query(ctx context.Context, env *infra.Env, each func(scan func(...any) error) error, text string, args ...any) error {
	rows, err := env.DB.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// number returns what a query for one number finds; 0 for NULL.
func number(ctx context.Context, env *infra.Env, text string, args ...any) (int64, error) {
	var n sql.NullInt64
	err := env.DB.QueryRowContext(ctx, text, args...).Scan(&n)
	return n.Int64, err
}
