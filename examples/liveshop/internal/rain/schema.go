package rain

import (
	"context"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Migrate creates the table of this package, unless it is there.
func Migrate(ctx context.Context, env *infra.Env) error { return env.Migrate(ctx, tables...) }

// tables are what this package keeps in SQL. What was paid in and out is in the log of
// package account: kind "prepare" with the ref "rain-<id>", and kind "packet" with
// "rain-<id>-<uid>" for each packet and "rain-<id>-rest" for what went back.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS rains (
		id         BIGINT NOT NULL PRIMARY KEY,
		room       BIGINT NOT NULL,
		host       BIGINT NOT NULL,
		asked      VARCHAR(60) NOT NULL UNIQUE,
		total      BIGINT NOT NULL,
		packets    INT NOT NULL,
		starts_ms  BIGINT NOT NULL,
		ends_ms    BIGINT NOT NULL,
		settled    INT NOT NULL,
		created_ms BIGINT NOT NULL
	)`,
}
