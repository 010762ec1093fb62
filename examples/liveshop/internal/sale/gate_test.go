package sale

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// A gate is a database that can be away: nothing connects, nothing is executed, and
// commits under way fail.
type gate struct {
	driver.Connector
	away atomic.Bool
}

var errAway = errors.New("the database is away")

// gated puts a gate between env and its SQLite file.
func gated(t *testing.T, env *infra.Env) *gate {
	t.Helper()
	c, err := sqlite.NewConnector("file:" + strings.TrimPrefix(env.Config.DB, "sqlite:") +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=immediate")
	require.NoError(t, err)
	g := &gate{Connector: c}
	direct := env.DB // order numbers are claimed there: a thousand of them at a time
	t.Cleanup(func() { require.NoError(t, direct.Close()) })
	env.DB = sql.OpenDB(g)
	env.DB.SetMaxOpenConns(4)
	return g
}

func (g *gate) check() error {
	if g.away.Load() {
		return errAway
	}
	return nil
}

func (g *gate) Connect(ctx context.Context) (driver.Conn, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	c, err := g.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &gatedConn{c, g}, nil
}

type gatedConn struct {
	driver.Conn
	g *gate
}

func (c *gatedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.g.check(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *gatedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.g.check(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *gatedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.g.check(); err != nil {
		return nil, err
	}
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &gatedTx{tx, c.g}, nil
}

type gatedTx struct {
	driver.Tx
	g *gate
}

func (tx *gatedTx) Commit() error {
	if err := tx.g.check(); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Tx.Commit()
}
