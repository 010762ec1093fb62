package im

import (
	_ "embed"
	"strings"
	"unicode"
)

//go:embed banned.txt
var banned string

// words finds banned words however they are spelled: in capitals, in full width, or
// with dots and spaces between the letters. It is a trie of their letters.
type words struct {
	next map[rune]*words
	end  bool
}

func newWords(list string) *words {
	root := &words{}
	for w := range strings.FieldsSeq(list) {
		at := root
		for _, r := range w {
			r, _ = plain(r)
			if at.next[r] == nil {
				if at.next == nil {
					at.next = map[rune]*words{}
				}
				at.next[r] = &words{}
			}
			at = at.next[r]
		}
		at.end = true
	}
	return root
}

// plain returns the letter or digit that r stands for.
func plain(r rune) (rune, bool) {
	if r >= 0xFF01 && r <= 0xFF5E { // full width
		r -= 0xFF01 - '!'
	}
	return unicode.ToLower(r), unicode.IsLetter(r) || unicode.IsDigit(r)
}

// mask returns text with a star for each character of a banned word. O(characters of
// text × those of the longest word).
func (w *words) mask(text string) string {
	runes := []rune(text)
	masked := false
	for i := range runes {
		if end := w.match(runes[i:]); end > 0 {
			masked = true
			for j := i; j < i+end; j++ {
				runes[j] = '*'
			}
		}
	}
	if !masked {
		return text
	}
	return string(runes)
}

// match returns how many runes the longest banned word takes with which text begins.
func (w *words) match(text []rune) (n int) {
	at := w
	for i, r := range text {
		r, letter := plain(r)
		if !letter {
			if i == 0 {
				return 0
			}
			continue
		}
		if at = at.next[r]; at == nil {
			return n
		}
		if at.end {
			n = i + 1
		}
	}
	return n
}
