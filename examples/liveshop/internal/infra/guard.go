package infra

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"modernc.org/sqlite"
)

// A guard stands between database/sql and the driver, so that it sees the statements
// of all packages: a circuit breaker, which answers for a database that is down
// instead of making everybody wait for it; a histogram; the operator's switch that
// makes it slow; and, for a database with one writer at a time, a queue.
type guard struct {
	driver.Connector
	breaker *gobreaker.CircuitBreaker[struct{}]
	slow    atomic.Bool
	seconds prometheus.Histogram
	writer  chan struct{} // full while somebody writes; nil if any number may
}

// oneWriter lets the writers of this process wait for each other here. Inside SQLite they
// would sleep and try again, up to a tenth of a second longer than they have to; which
// statements that write and return rows still do.
func (g *guard) oneWriter() { g.writer = make(chan struct{}, 1) }

// errQueued is that a writer's ctx ended while it waited for others, and not for the
// database.
var errQueued = errors.New("infra: others are writing")

func (g *guard) lock(ctx context.Context) error {
	if g.writer == nil {
		return nil
	}
	select {
	case g.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errQueued, ctx.Err())
	}
}

func (g *guard) unlock() {
	if g.writer != nil {
		<-g.writer
	}
}

func newGuard(c driver.Connector, log *slog.Logger, metrics *prometheus.Registry) *guard {
	g := &guard{Connector: c, seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "liveshop_sql_seconds", Help: "Time of SQL statements.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	})}
	g.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "sql", Interval: 10 * time.Second, BucketPeriod: time.Second, Timeout: time.Second,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= 5 || c.Requests >= 20 && c.TotalFailures*2 > c.Requests
		},
		IsSuccessful: func(err error) bool { return !databaseDown(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) || errors.Is(err, errQueued) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Warn("SQL breaker", "from", from.String(), "to", to.String())
		},
	})
	metrics.MustRegister(g.seconds, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "liveshop_sql_breaker_open", Help: "1 while the database is not asked because it was down.",
	}, func() float64 {
		if g.breaker.State() == gobreaker.StateOpen {
			return 1
		}
		return 0
	}))
	return g
}

// databaseDown tells an answer, which a violated key is too, from none.
func databaseDown(err error) bool {
	if err == nil || errors.Is(err, driver.ErrSkip) {
		return false
	}
	if e := new(mysql.MySQLError); errors.As(err, &e) {
		return e.Number == 1040 || e.Number == 1053 // too many connections, shutting down
	}
	if e := new(sqlite.Error); errors.As(err, &e) {
		switch e.Code() & 0xff {
		case 5, 10, 13, 14: // busy for all of its timeout, I/O error, disk full, cannot open
			return true
		}
		return false
	}
	return true
}

func (g *guard) delay(on bool) { g.slow.Store(on) }

// do asks the database, if it is worth asking; a writer when it is its turn, which ask
// then ends.
func (g *guard) do(ctx context.Context, writer bool, ask func() error) error {
	_, err := g.breaker.Execute(func() (struct{}, error) {
		if g.slow.Load() {
			select {
			case <-time.After(slowness):
			case <-ctx.Done():
				return struct{}{}, ctx.Err()
			}
		}
		if writer {
			if err := g.lock(ctx); err != nil {
				return struct{}{}, err
			}
		}
		began := time.Now()
		err := ask()
		g.seconds.Observe(time.Since(began).Seconds())
		return struct{}{}, err
	})
	return err
}

// Connect is not delayed by SlowSQL: the statement that needs the connection is.
func (g *guard) Connect(ctx context.Context) (c driver.Conn, err error) {
	_, err = g.breaker.Execute(func() (_ struct{}, err error) {
		c, err = g.Connector.Connect(ctx)
		return
	})
	if err != nil {
		return nil, err
	}
	return &guarded{Conn: c, g: g}, nil
}

// A guarded is a connection. It passes on what both drivers can do. A commit is not
// guarded: one that is refused here would leave the transaction open.
type guarded struct {
	driver.Conn
	g    *guard
	inTx bool
}

func (c *guarded) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (res driver.Result, err error) {
	err = c.g.do(ctx, !c.inTx, func() (err error) {
		if !c.inTx {
			defer c.g.unlock()
		}
		res, err = c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
		return err
	})
	return res, err
}

func (c *guarded) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (rows driver.Rows, err error) {
	err = c.g.do(ctx, false, func() (err error) {
		rows, err = c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
		return err
	})
	return rows, err
}

func (c *guarded) PrepareContext(ctx context.Context, query string) (stmt driver.Stmt, err error) {
	err = c.g.do(ctx, false, func() (err error) {
		stmt, err = c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
		return err
	})
	return stmt, err
}

func (c *guarded) BeginTx(ctx context.Context, opts driver.TxOptions) (tx driver.Tx, err error) {
	err = c.g.do(ctx, true, func() (err error) {
		defer func() {
			if !c.inTx {
				c.g.unlock()
			}
		}()
		tx, err = c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
		c.inTx = err == nil
		return err
	})
	return guardedTx{tx, c}, err
}

// A guardedTx lets the next one write when it has ended, of which database/sql sees to
// that it happens once.
type guardedTx struct {
	driver.Tx
	c *guarded
}

func (t guardedTx) Commit() error {
	defer t.ended()
	return t.Tx.Commit()
}

func (t guardedTx) Rollback() error {
	defer t.ended()
	return t.Tx.Rollback()
}

func (t guardedTx) ended() {
	t.c.inTx = false
	t.c.g.unlock()
}

// Ping is not guarded: it is how one asks whether the database is down.
func (c *guarded) Ping(ctx context.Context) error { return c.Conn.(driver.Pinger).Ping(ctx) }

func (c *guarded) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

func (c *guarded) IsValid() bool { return c.Conn.(driver.Validator).IsValid() }

// CheckNamedValue lets MySQL's driver take what database/sql would refuse.
func (c *guarded) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
