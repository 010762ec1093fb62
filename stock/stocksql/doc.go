// Package stocksql keeps the journal of a stock.Activity in a SQL database: MySQL,
// MariaDB, PostgreSQL or SQLite, over database/sql. A [Store] is a stock.Sink for
// RunJournal, and a stock.Ledger for Reconcile and Rebuild.
//
// # What it promises
//
// Every op of the journal is in SQL once, in the journal's order, however many
// processes write, whatever is killed and whichever reply is lost: rows, levels and
// checkpoint move in one transaction, and the checkpoint by compare-and-swap, so
// that of two writers one gets a batch in and the other reads again.
//
// The journals of an activity with buckets are rows beside each other, with a
// checkpoint and levels each. Summed up over them, and with what was given and not yet
// taken, a SKU has what was loaded and restocked.
//
// SQL never has less than nothing left of a SKU: an UPDATE that would make it so is
// not done, nor is anything else of its batch, and the activity is halted.
//
// # What it does not
//
// It is behind Redis by a batch or so, stock.Options.Linger and the time of a
// transaction. What Redis loses before it is here is lost.
//
// An order id is one order for ever. When it is used again after Redis forgot it
// (stock.Options.Retention), the rows of the second order are left out, and Reconcile
// shows the difference.
//
// Crossings are not kept. A sink that fails with anything but a forked journal tries
// again for ever: watch stock.Stats.Failures.
//
// # Redis keys it writes
//
// None. Tables, which Migrate creates; BYTES(n) is VARBINARY(n) in MySQL, BYTEA in
// PostgreSQL, BLOB in SQLite, so that names of any bytes compare as what they are.
//
//	CREATE TABLE spillway_stock_journal (
//		journal  BYTES(255)  NOT NULL PRIMARY KEY, -- the activity, or a bucket of one: sale%b3.0
//		position VARCHAR(41) NOT NULL              -- the last entry that is here
//	);
//	CREATE TABLE spillway_stock_level (
//		journal    BYTES(255) NOT NULL,
//		sku        BYTES(128) NOT NULL,
//		left_units BIGINT NOT NULL,
//		held_units BIGINT NOT NULL,
//		sold_units BIGINT NOT NULL,
//		PRIMARY KEY (journal, sku)
//	);
//	CREATE TABLE spillway_stock_row (
//		journal    BYTES(255)  NOT NULL,
//		entry_ms   BIGINT      NOT NULL, -- the id of the entry
//		entry_seq  BIGINT      NOT NULL,
//		op         INT         NOT NULL, -- its place in the entry
//		item       INT         NOT NULL, -- its place in the op
//		kind       VARCHAR(16) NOT NULL, -- as stock.OpKind prints: deduct, cancel, …
//		order_id   BYTES(256)  NOT NULL, -- or the id of a restock or transfer, or the entry of a load
//		user_id    BYTES(256)  NOT NULL,
//		sku        BYTES(128)  NOT NULL,
//		qty        BIGINT      NOT NULL,
//		left_diff  BIGINT      NOT NULL, -- what it changes
//		held_diff  BIGINT      NOT NULL,
//		sold_diff  BIGINT      NOT NULL,
//		partial    INT         NOT NULL, -- 1: stock.Order.Partial
//		reason     BYTES(256)  NOT NULL, -- of a cancel; see stock.Op
//		at_ms      BIGINT      NOT NULL, -- Redis's clock
//		hold_ms    BIGINT      NOT NULL, -- of the reserves of the entry
//		PRIMARY KEY (journal, entry_ms, entry_seq, op, item),
//		UNIQUE (journal, order_id, kind, sku)
//	)
//
// Read them at will; write none of them.
//
// # When Redis is slow, down or fails over
//
// See package stock. When the database is slow or down, orders go on in Redis, and the
// journal grows there, up to stock.Options.MaxLag.
//
// # Cost per call
//
//	call        statements                                      in
//	Checkpoint  1
//	Apply       2, 1 per 250 rows, 1 or 2 per SKU               one transaction, READ COMMITTED
//	Levels      3, O(rows)                                      one snapshot
//	Entries     1, O(rows)
package stocksql
