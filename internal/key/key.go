// Package key names the Redis keys of one object.
//
// Every key Spillway writes has the shape
//
//	<prefix>:<package><layout>:{<name>}:<kind>
//
// The braces are the Cluster hash tag: all keys of one object share a slot, so
// that one script may touch them together. The layout digit changes when the
// meaning of a package's keys does, so that old and new releases can run side
// by side on one Redis.
package key

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// defaultPrefix is used where a package's Options.Prefix is empty.
const defaultPrefix = "spillway"

// maxName is the longest name that is kept readable, in bytes after escaping;
// a longer one is replaced by its hash.
const maxName = 200

// A Space is the set of keys of one object.
type Space struct{ base string }

// New returns the key space of the object called name. Any prefix and name are
// legal: what could leave the prefix or choose another slot is escaped.
func New(prefix, pkg string, layout int, name string) Space {
	if prefix == "" {
		prefix = defaultPrefix
	}
	return Space{Escape(prefix) + ":" + pkg + strconv.Itoa(layout) + ":{" + Escape(name) + "}"}
}

// Key returns the key of the given kind, a constant of the calling package.
func (s Space) Key(kind string) string { return s.base + ":" + kind }

// Tag returns what the object's keys have in common up to and with the hash
// tag. Two objects have the same Tag only if they are the same object, which
// makes it the name of the object's lane in internal/coalesce.
func (s Space) Tag() string { return s.base }

// Escape makes s safe as a part of a key: braces, percent signs and control
// characters become %XX; what is then longer than 200 bytes becomes "%h" and
// the SHA-256 of s, which no escaped name can equal. An empty s becomes "%e":
// Redis ignores an empty hash tag.
func Escape(s string) string {
	if s == "" {
		return "%e"
	}
	n := 0
	for i := range len(s) {
		if special(s[i]) {
			n++
		}
	}
	if len(s)+2*n > maxName {
		sum := sha256.Sum256([]byte(s))
		return "%h" + hex.EncodeToString(sum[:])
	}
	if n == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := range len(s) {
		if c := s[i]; special(c) {
			const digits = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func special(c byte) bool {
	return c == '{' || c == '}' || c == '%' || c < 0x20 || c == 0x7f
}
