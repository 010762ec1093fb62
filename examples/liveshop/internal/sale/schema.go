package sale

import (
	"context"
	"errors"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// tables are what this package keeps in SQL, beside the ledger of stocksql. There the
// journal of a room's sale is called room-<id>, and those of the buckets of a star's
// room-<id>%b3.0 and so on.
var tables = []string{
	// What the operator registered. total is all units that were ever given to the
	// host for it.
	`CREATE TABLE IF NOT EXISTS products (
		sku       VARCHAR(40)  NOT NULL PRIMARY KEY,
		host      BIGINT       NOT NULL,
		title     VARCHAR(200) NOT NULL,
		image     VARCHAR(300) NOT NULL,
		fen       BIGINT       NOT NULL,
		total     BIGINT       NOT NULL,
		per_user  BIGINT       NOT NULL,
		opens_ms  BIGINT       NOT NULL,
		closes_ms BIGINT       NOT NULL,
		elsewhere INT          NOT NULL,
		version   BIGINT       NOT NULL
	)`,
	`CREATE TABLE IF NOT EXISTS sales (
		room     BIGINT      NOT NULL PRIMARY KEY,
		host     BIGINT      NOT NULL,
		per_user BIGINT      NOT NULL,
		buckets  INT         NOT NULL,
		state    VARCHAR(16) NOT NULL,
		since_ms BIGINT      NOT NULL
	)`,
	// units were loaded into the room's sale, at a price that does not change any more;
	// returned came back at its end.
	`CREATE TABLE IF NOT EXISTS sale_items (
		room     BIGINT      NOT NULL,
		sku      VARCHAR(40) NOT NULL,
		fen      BIGINT      NOT NULL,
		loaded   BIGINT      NOT NULL,
		units    BIGINT      NOT NULL,
		returned BIGINT      NOT NULL,
		PRIMARY KEY (room, sku)
	)`,
	// Units added while the sale is open: written with the product, brought to Redis after,
	// and done when the ledger has them.
	`CREATE TABLE IF NOT EXISTS restocks (
		room    BIGINT      NOT NULL,
		sku     VARCHAR(40) NOT NULL,
		version BIGINT      NOT NULL,
		qty     BIGINT      NOT NULL,
		done    INT         NOT NULL,
		PRIMARY KEY (room, sku, version)
	)`,
	// state is pending, paid or cancelled, as the ledger has it; an order whose payment
	// was refunded is called so when it is read.
	`CREATE TABLE IF NOT EXISTS orders (
		order_id   BIGINT      NOT NULL PRIMARY KEY,
		uid        BIGINT      NOT NULL,
		room       BIGINT      NOT NULL,
		items      TEXT        NOT NULL,
		fen        BIGINT      NOT NULL,
		state      VARCHAR(16) NOT NULL,
		created_ms BIGINT      NOT NULL,
		expires_ms BIGINT      NOT NULL,
		paid_ms    BIGINT      NOT NULL,
		version    BIGINT      NOT NULL
	)`,
	// The last entry of each journal in the ledger that orders has.
	`CREATE TABLE IF NOT EXISTS order_positions (
		journal   VARCHAR(80) NOT NULL PRIMARY KEY,
		entry_ms  BIGINT      NOT NULL,
		entry_seq BIGINT      NOT NULL
	)`,
	// state is begun, then taken, refunded or void; see pay.go. fen is the price of the
	// order, less what a coupon takes off once that is used.
	`CREATE TABLE IF NOT EXISTS payments (
		order_id BIGINT      NOT NULL PRIMARY KEY,
		uid      BIGINT      NOT NULL,
		room     BIGINT      NOT NULL,
		fen      BIGINT      NOT NULL,
		state    VARCHAR(16) NOT NULL,
		begun_ms BIGINT      NOT NULL
	)`,
	// order_id is NULL until the coupon is used, and again when the payment went back. An
	// order has one at most. min_fen is more than off_fen: nothing is for nothing.
	`CREATE TABLE IF NOT EXISTS coupons (
		coupon     VARCHAR(40) NOT NULL PRIMARY KEY,
		uid        BIGINT      NOT NULL,
		off_fen    BIGINT      NOT NULL,
		min_fen    BIGINT      NOT NULL,
		expires_ms BIGINT      NOT NULL,
		order_id   BIGINT      NULL UNIQUE,
		used_ms    BIGINT      NOT NULL
	)`,
	// What somebody else has; see warehouse.go.
	`CREATE TABLE IF NOT EXISTS warehouse (
		sku   VARCHAR(40) NOT NULL PRIMARY KEY,
		units BIGINT      NOT NULL
	)`,
	// What Redis said, every 15 seconds: for reports that must not ask it.
	`CREATE TABLE IF NOT EXISTS stock_figures (
		activity   VARCHAR(40) NOT NULL,
		sku        VARCHAR(40) NOT NULL,
		left_units BIGINT      NOT NULL,
		reserved   BIGINT      NOT NULL,
		sold       BIGINT      NOT NULL,
		updated_ms BIGINT      NOT NULL,
		PRIMARY KEY (activity, sku)
	)`,
}

// Migrate creates the tables that are not there.
func Migrate(ctx context.Context, env *infra.Env) error {
	if err := env.Migrate(ctx, tables...); err != nil {
		return err
	}
	return errors.Join(
		stocksql.Migrate(ctx, env.DB, env.Dialect),
		env.Index(ctx, "products_by_host", "products", "host"),
		env.Index(ctx, "sales_by_state", "sales", "state"),
		env.Index(ctx, "sale_items_by_sku", "sale_items", "sku"),
		env.Index(ctx, "orders_by_user", "orders", "uid, created_ms"),
		env.Index(ctx, "coupons_by_user", "coupons", "uid"),
		env.Index(ctx, "payments_by_state", "payments", "state, begun_ms"),
	)
}
