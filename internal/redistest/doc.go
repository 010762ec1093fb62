// Package redistest gives tests a Redis. It serves tests only: no package of
// the library imports it.
package redistest
