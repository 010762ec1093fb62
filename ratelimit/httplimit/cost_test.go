package httplimit

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/ratelimit"
)

// quiet answers nobody.
type quiet struct{ header http.Header }

func (w quiet) Header() http.Header         { return w.header }
func (w quiet) Write(b []byte) (int, error) { return len(b), nil }
func (w quiet) WriteHeader(int)             {}

// What doc.go says under "Cost per call" is measured.
func TestCostPerCall(t *testing.T) {
	l, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerHour(1_000_000), ratelimit.PerSecond(1_000_000)})
	require.NoError(t, err)
	served := 0
	h := Middleware(l, func(*http.Request) string { return "k" }, Options{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := quiet{http.Header{}}
	allocations := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
	require.Equal(t, 101, served)
	if !redistest.RaceEnabled {
		row := redistest.Costs(t).Row(t, "request")
		require.LessOrEqual(t, allocations, float64(row.Number("allocations, beside Allow's")))
	}
}
