package im

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWords(t *testing.T) {
	w := newWords("casino cas 加微信 ab")
	for text, want := range map[string]string{
		"":                "",
		"hello":           "hello",
		"casino":          "******",
		"a casino!":       "a ******!",
		"CASINO Casino":   "****** ******",
		"ｃａｓｉｎｏ":          "******",
		"c-a.s i n o":     "***********",
		"casin":           "***in", // the shorter word
		"请加 微 信 123":      "请***** 123",
		"cacasino":        "ca******",
		"...":             "...",
		"a":               "a",
		"abab":            "****",
		"b a":             "b a",
		"caſ\u200dino":    "caſ\u200dino",
		"\xff casino\xff": "\ufffd ******\ufffd",
	} {
		require.Equal(t, want, w.mask(text), "%q", text)
	}
}

func FuzzLines(f *testing.F) {
	f.Add("room 1 2 3\nr 0 4 3 id {\"seq\":4}")
	f.Add("room 1 2 3\ns 0 0 0 id {}\nc 7 5 0 id {\"d\":\" a b \"}")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := parseBatch(text)
		if err != nil {
			return
		}
		for _, fr := range b.frames {
			require.Contains(t, "scr", string(fr.kind))
			require.Contains(t, text, string(fr.text))
		}
	})
}
