// Package e2e holds tests of examples/liveshop through its page: a demo that really
// runs, and Chromium that opens it. They are a module of their own, so that nobody who
// uses Spillway gets a browser driver into go.sum.
//
//	go -C internal/e2e test ./...
//
// Without chromium on the PATH they are skipped; E2E_REQUIRED=1 makes that a failure.
// E2E_SCREENSHOT=1 also writes the picture of the example's README.
package e2e
