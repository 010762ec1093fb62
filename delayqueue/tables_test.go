package delayqueue_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"sync"
)

// openTables opens a database that knows INSERT of an id, INSERT IGNORE and DELETE,
// and transactions one after the other. It spares the package a driver.
func openTables() *sql.DB {
	t := &tables{rows: map[string]bool{}}
	db := sql.OpenDB(t)
	return db
}

type tables struct {
	sync.Mutex // held by a transaction
	rows       map[string]bool
}

func (t *tables) Connect(context.Context) (driver.Conn, error) { return &tablesConn{t: t}, nil }
func (t *tables) Driver() driver.Driver                        { return nil }

type tablesConn struct {
	t    *tables
	undo []func() // of the transaction under way
	inTx bool
}

func (c *tablesConn) Prepare(string) (driver.Stmt, error) {
	return nil, errors.New("tables: no prepared statements")
}
func (c *tablesConn) Close() error { return nil }

func (c *tablesConn) Begin() (driver.Tx, error) {
	c.t.Lock()
	c.inTx, c.undo = true, nil
	return c, nil
}

func (c *tablesConn) Commit() error {
	c.inTx, c.undo = false, nil
	c.t.Unlock()
	return nil
}

func (c *tablesConn) Rollback() error {
	for _, f := range c.undo {
		f()
	}
	return c.Commit()
}

func (c *tablesConn) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !c.inTx {
		c.t.Lock()
		defer c.t.Unlock()
	}
	words := strings.Fields(strings.NewReplacer("INTO ", "", "FROM ", "").Replace(query))
	insert, ignore := words[0] == "INSERT", words[1] == "IGNORE"
	table := words[1]
	if ignore {
		table = words[2]
	}
	id, _ := args[0].Value.(string)
	row := table + "/" + id
	was := c.t.rows[row]
	switch {
	case was == insert && insert && !ignore:
		return nil, errors.New("tables: duplicate id")
	case was == insert:
		return driver.RowsAffected(0), nil
	}
	c.t.rows[row] = insert
	c.undo = append(c.undo, func() { c.t.rows[row] = was })
	return driver.RowsAffected(1), nil
}
