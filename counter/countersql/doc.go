// Package countersql keeps the blocks of a counter that are not in Redis in an SQL
// database.
//
// # What it promises
//
// A Save that was answered is as durable as a commit of the database. Of several at
// once one is taken; the others change nothing and are told so.
//
// # What it does not
//
// Rows are kept until somebody deletes them. Deleting the row of a block that is in Redis
// keeps it there: its moves fail with counter.ErrLost.
//
// # Redis keys it writes
//
// None. The table, here for MySQL, has a row of some hundred bytes and 1 KB a field for
// every 256 objects that were counted:
//
//	CREATE TABLE spillway_counter (schema_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
//	  block BIGINT, revision BIGINT NOT NULL, state SMALLINT NOT NULL,
//	  epoch BIGINT NOT NULL, version BIGINT NOT NULL, totals MEDIUMBLOB NOT NULL,
//	  PRIMARY KEY (schema_name, block))
//
// # When Redis is slow, down or fails over
//
// It does not matter here. When the database is, blocks that are not in Redis cannot be
// read or added to, and stay in Redis that are there.
//
// # Cost per call
//
//	call  statements
//	Load  1
//	Save  1
package countersql
