package feed

// tables are what this package keeps in SQL.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS posts (
		id         BIGINT NOT NULL PRIMARY KEY,
		asked      VARCHAR(60) NOT NULL UNIQUE,
		host       BIGINT NOT NULL,
		text       VARCHAR(500) NOT NULL,
		created_ms BIGINT NOT NULL,
		deleted    INT NOT NULL
	)`,
	`CREATE TABLE IF NOT EXISTS follows (
		fan      BIGINT NOT NULL,
		host     BIGINT NOT NULL,
		since_ms BIGINT NOT NULL,
		PRIMARY KEY (fan, host)
	)`,
}
