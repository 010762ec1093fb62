package httplimit

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/ratelimit"
)

// quiet answers nobody.
type quiet struct{ header http.Header }

func (w quiet) Header() http.Header         { return w.header }
func (w quiet) Write(b []byte) (int, error) { return len(b), nil }
func (w quiet) WriteHeader(int)             {}

// What doc.go says under "Cost per call" is measured.
func TestCostPerCall(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	promised := regexp.MustCompile(`(?m)^//\trequest\s+1 Allow\s+(\d+)$`).FindSubmatch(doc)
	require.NotNil(t, promised)
	most, err := strconv.ParseFloat(string(promised[1]), 64)
	require.NoError(t, err)

	l, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerHour(1_000_000), ratelimit.PerSecond(1_000_000)})
	require.NoError(t, err)
	served := 0
	h := Middleware(l, func(*http.Request) string { return "k" }, Options{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := quiet{http.Header{}}
	allocations := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
	require.Equal(t, 101, served)
	if !raceEnabled {
		require.LessOrEqual(t, allocations, most)
	}
}
