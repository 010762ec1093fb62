package idgen

import (
	"fmt"
	"testing"
)

// What a script answers is read without trust: an error or a number, never a panic.
func FuzzParseClaim(f *testing.F) {
	f.Add("21", int64(1), uint8(2))
	f.Add("", int64(0), uint8(2))
	f.Add("1e15", int64(7), uint8(3))
	f.Fuzz(func(t *testing.T, text string, skipped int64, n uint8) {
		reply := []any{text, skipped, nil, text}[:n%5]
		last, jumped, err := parseClaim(reply)
		if err != nil {
			return
		}
		if len(reply) != 2 || jumped != (skipped == 1) {
			t.Fatalf("%v was read as %d, %v", reply, last, jumped)
		}
		if again, _, err := parseClaim([]any{fmt.Sprint(last), skipped}); err != nil || again != last {
			t.Fatalf("%d was read as %d, %v", last, again, err)
		}
	})
}
