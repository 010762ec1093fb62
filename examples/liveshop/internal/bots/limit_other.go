//go:build !unix

package bots

func audience(n int) (watchers int, why string) { return min(n/10, 500), "at most 500" }
