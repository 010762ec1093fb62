package breaker

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A server that fails now and then, or fewer times in a row than it takes, is asked.
func TestStaysClosed(t *testing.T) {
	b := New()
	for range 100 {
		for range failures - 1 {
			require.True(t, b.Ready())
			b.Done(false)
		}
		b.Done(true)
	}
	require.False(t, b.Open())
	require.Zero(t, b.Opened())
	require.Zero(t, b.Wait())
}

func TestOpensProbesAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		trip(b)
		require.True(t, b.Open())
		require.False(t, b.Ready())
		require.Positive(t, b.Wait())

		// While probes fail they become rare, down to one in 2.5 to 7.5 s.
		probes := 0
		for range 6000 {
			time.Sleep(10 * time.Millisecond)
			if b.Ready() {
				probes++
				require.False(t, b.Ready(), "two probes at once")
				b.Done(false)
			}
		}
		require.Greater(t, probes, 7)
		require.Less(t, probes, 30)

		// Successes in a row close it, and a failure among them starts over.
		for _, ok := range []bool{true, true, false, true, true} {
			time.Sleep(b.Wait())
			require.True(t, b.Ready())
			b.Done(ok)
			require.True(t, b.Open())
			require.LessOrEqual(t, b.Wait(), maxPause*3/2)
		}
		time.Sleep(b.Wait())
		b.Done(true)
		require.False(t, b.Open())
		require.True(t, b.Ready())
		require.Equal(t, uint64(1), b.Opened())

		// It closed with a clean slate.
		b.Done(false)
		require.False(t, b.Open())
		trip(b)
		require.Equal(t, uint64(2), b.Opened())
	})
}

// A probe whose caller never reports does not keep the breaker open for ever.
func TestProbeThatNeverReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		trip(b)
		for range 10 {
			time.Sleep(b.Wait())
			require.True(t, b.Ready())
		}
	})
}

// A hundred calls share one round trip that fails, and all report it: that is no
// probe that failed. The first probe comes as soon as ever, also the second time.
func TestSharedFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		for range 2 {
			for range 100 {
				b.Done(false)
			}
			require.True(t, b.Open())
			require.LessOrEqual(t, b.Wait(), minPause*3/2)
			for range successes {
				time.Sleep(b.Wait())
				require.True(t, b.Ready())
				b.Done(true)
			}
			require.False(t, b.Open())
		}
		require.Equal(t, uint64(2), b.Opened())
	})
}

// A server that flaps as fast as it likes does not make the breaker flap.
func TestHysteresis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		for i := range 60_000 { // a minute, up and down every 50 ms
			if b.Ready() {
				b.Done(i/50%2 == 0)
			}
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, b.Opened(), uint64(60*time.Second/(2*minPause)))
	})
}

func TestManyCallers(t *testing.T) {
	b := New()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10_000 {
				if b.Ready() {
					b.Done((i+j)%3 == 0)
				}
				_ = b.Wait()
			}
		})
	}
	wg.Wait()
	for b.Open() {
		b.Done(true)
	}
	require.True(t, b.Ready())
}

func trip(b *Breaker) {
	for range failures {
		b.Done(false)
	}
}
