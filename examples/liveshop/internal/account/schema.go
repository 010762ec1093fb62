package account

// tables are what this package keeps in SQL. A payment is two rows of wallet_log,
// whose fen add up to 0; a wallet's fen is the sum of its rows.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS users (
		uid        BIGINT NOT NULL PRIMARY KEY,
		phone      VARCHAR(20) NOT NULL UNIQUE,
		name       VARCHAR(40) NOT NULL,
		created_ms BIGINT NOT NULL
	)`,
	`CREATE TABLE IF NOT EXISTS wallets (
		uid     BIGINT NOT NULL PRIMARY KEY,
		fen     BIGINT NOT NULL,
		version BIGINT NOT NULL
	)`,
	`CREATE TABLE IF NOT EXISTS wallet_log (
		kind       VARCHAR(16) NOT NULL,
		ref        VARCHAR(80) NOT NULL,
		uid        BIGINT NOT NULL,
		fen        BIGINT NOT NULL,
		balance    BIGINT NOT NULL,
		created_ms BIGINT NOT NULL,
		PRIMARY KEY (kind, ref, uid)
	)`,
}
