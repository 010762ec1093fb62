// Package bench measures Spillway beside the usual choices for the same work,
// on the same Redis, in one process and one run. README.md says how to run it
// and how to read what comes out; the rows themselves are in the tests.
package bench
