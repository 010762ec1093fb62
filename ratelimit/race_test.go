//go:build race

package ratelimit

const raceEnabled = true // which allocates by itself
