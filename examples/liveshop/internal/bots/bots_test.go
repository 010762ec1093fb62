package bots

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
)

// What customers were told is judged by verdicts that can fail.
func TestAnswersAreJudged(t *testing.T) {
	sound := func() *Crowd {
		c := NewCrowd("", 1, "tea", 3)
		c.told = map[int64]int64{101: 1, 102: 2, 103: 3}
		return c
	}
	opts := Options{Customers: 100, Units: 3}
	bad := func(c *Crowd) (names []string) {
		for _, v := range c.answers(opts) {
			if !v.OK {
				names = append(names, v.Name)
			}
		}
		return names
	}
	require.Empty(t, bad(sound()))
	c := sound()
	c.told[104] = 4
	require.Equal(t, []string{"sold is what there was, and no more"}, bad(c))
	c = sound()
	delete(c.told, 103)
	require.Equal(t, []string{"sold is what there was, and no more"}, bad(c))
	c = sound()
	c.told[103] = 2
	require.Equal(t, []string{"nobody got more than one"}, bad(c))
	c = sound()
	c.fault(t.Context(), "order", &api.Error{Status: 409, Code: "limit"})
	require.Empty(t, bad(c))
	c.fault(t.Context(), "order", &api.Error{Status: 404, Code: "not_found"})
	require.Equal(t, []string{"every call got an answer that makes sense"}, bad(c))
}

func TestPrint(t *testing.T) {
	var out strings.Builder
	require.NoError(t, Print(&out, []check.Verdict{{Name: "a", OK: true}}))
	require.Contains(t, out.String(), "PASS: all 1.")
	out.Reset()
	require.ErrorIs(t, Print(&out, []check.Verdict{{Name: "a", OK: true}, {Name: "b"}}), ErrFailed)
	require.Contains(t, out.String(), "FAIL  b")
	require.ErrorIs(t, Print(&out, nil), ErrFailed, "nothing was looked at")
}

func TestMeter(t *testing.T) {
	var m meter
	for i := range 100 {
		m.saw("POST /orders/123456/pay", time.Duration(i+1)*time.Millisecond, nil)
	}
	m.saw("POST /orders/99/pay", time.Hour, &api.Error{Status: 503, Code: "unavailable"})
	m.saw("POST /orders/99/pay", time.Hour, errors.New("cut"))
	require.Equal(t, 102, m.count())
	var out strings.Builder
	m.print(&out)
	require.Regexp(t, `POST /orders/\{id\}/pay +102 +50\.0 ms +99\.0 ms  200: 100, 503 unavailable: 1, no answer: 1`, out.String())
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, grouped(n))
	}
}
