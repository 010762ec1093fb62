package room

import (
	"context"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Migrate creates the tables of this package, unless they are there.
func Migrate(ctx context.Context, env *infra.Env) error { return env.Migrate(ctx, tables...) }

// tables are what this package keeps in SQL. A room that is open has its host in
// live, which is unique: a host has one open room. A closed one has NULL there.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS rooms (
		id        BIGINT NOT NULL PRIMARY KEY,
		host      BIGINT NOT NULL,
		live      BIGINT NULL UNIQUE,
		title     VARCHAR(80) NOT NULL,
		kind      VARCHAR(10) NOT NULL,
		star      INT NOT NULL,
		opened_ms BIGINT NOT NULL,
		closed_ms BIGINT NOT NULL
	)`,
	`CREATE TABLE IF NOT EXISTS grants (
		uid  BIGINT NOT NULL,
		what VARCHAR(10) NOT NULL,
		PRIMARY KEY (uid, what)
	)`,
}
