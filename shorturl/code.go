package shorturl

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
)

const (
	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	maxAlias = 64 // bytes
	tries    = 16 // codes that are tried before Shorten gives up
)

// reservedWords are what sites have at their root.
var reservedWords = []string{
	"about", "account", "admin", "api", "app", "assets", "auth", "blog", "contact", "dashboard", "docs", "favicon", "health",
	"healthz", "help", "home", "index", "links", "login", "logout", "metrics", "null", "privacy", "register", "robots",
	"settings", "signin", "signup", "sitemap", "static", "status", "terms", "undefined", "well-known", "www",
}

// encode writes n, below 62^length, in length characters.
func encode(n int64, length int) string {
	var b [10]byte
	for i := length - 1; i >= 0; i-- {
		b[i] = alphabet[n%62]
		n /= 62
	}
	return string(b[:length])
}

// wellFormed reports whether code can be that of a link: nothing else is looked up.
func wellFormed(code string) bool {
	if len(code) < 1 || len(code) > maxAlias {
		return false
	}
	for i := range len(code) {
		if !isWord(code[i]) && code[i] != '-' && code[i] != '_' {
			return false
		}
	}
	return true
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// generated reports whether code is in the space of generated codes, which aliases
// may not enter.
func (s *Service) generated(code string) bool {
	return len(code) == s.opts.Length && !strings.ContainsAny(code, "-_")
}

func (s *Service) checkAlias(alias string) error {
	switch {
	case len(alias) < 3 || !wellFormed(alias):
		return fmt.Errorf("%w: Request.Alias %.100q, want 3 to %d letters, digits, - and _", ErrInvalid, alias, maxAlias)
	case s.generated(alias):
		return fmt.Errorf("%w: Request.Alias %q looks like a generated code; want another length than %d, or a - or _",
			ErrInvalid, alias, s.opts.Length)
	case s.reserved[strings.ToLower(alias)]:
		return fmt.Errorf("%w: %q is reserved", ErrTaken, alias)
	}
	return nil
}

// code returns a code for l; try counts from 0.
func (s *Service) code(ctx context.Context, l Link, try int) (string, error) {
	var n int64
	switch s.opts.Codes {
	case Sequential:
		id, err := s.opts.IDs.Next(ctx)
		if err != nil {
			return "", err
		}
		if !s.shuffle.Holds(id) {
			return "", fmt.Errorf("%w: id %d does not fit into codes of Options.Length %d", ErrInvalid, id, s.opts.Length)
		}
		n = s.shuffle.Permute(id)
	case Digest:
		h := hmac.New(sha256.New, s.opts.Key)
		h.Write([]byte(l.URL + "\n" + l.Owner + "\n"))
		if try > 0 {
			// Random: an owner may have any number of links to one URL.
			h.Write([]byte(rand.Text()))
		}
		// 128 bits over 62^10: the bias is below 2^-68.
		sum := new(big.Int).SetBytes(h.Sum(nil)[:16])
		n = sum.Mod(sum, big.NewInt(s.domain)).Int64()
	case Random:
		var b [8]byte
		// Numbers of the last, incomplete round of the domain would favour low codes.
		limit := (1<<64 - 1) / uint64(s.domain) * uint64(s.domain)
		for v := limit; v >= limit; n = int64(v % uint64(s.domain)) {
			_, _ = rand.Read(b[:]) // never fails
			v = binary.LittleEndian.Uint64(b[:])
		}
	}
	return encode(n, s.opts.Length), nil
}

// digestOf is what a one-to-one link is found by.
func digestOf(url, owner string) string {
	sum := sha256.Sum256([]byte(url + "\n" + owner)) // no URL has a line feed
	return hex.EncodeToString(sum[:])
}
