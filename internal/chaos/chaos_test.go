package chaos

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Main(m, map[string]Job{"count": count, "fail": fail, "wait": wait, "buy": buy, "buy hot": buyHot, "stampede": stampede})
}

func count(_ context.Context, w *Worker) error {
	var to int
	if err := w.Config(&to); err != nil {
		return err
	}
	for i := range to {
		if err := w.Report(i); err != nil {
			return err
		}
	}
	return nil
}

func fail(context.Context, *Worker) error { return errors.New("as it should") }

func wait(ctx context.Context, w *Worker) error {
	if err := w.Report(1); err != nil {
		return err
	}
	<-ctx.Done()
	return w.Report(2)
}

func TestWorkers(t *testing.T) {
	sum := 0
	require.NoError(t, Start(t, "count", 100, func(i int) { sum += i }).Wait())
	require.Equal(t, 4950, sum)

	ignore := func(int) {}
	require.ErrorContains(t, Start(t, "fail", nil, ignore).Wait(), "as it should")
	require.ErrorContains(t, Start(t, "no such job", nil, ignore).Wait(), "no job")
	require.ErrorContains(t, Start(t, "count", 3, func(string) {}).Wait(), "report")

	var last atomic.Int64
	ready := make(chan struct{})
	started := func(i int) {
		last.Store(int64(i))
		if i == 1 {
			ready <- struct{}{}
		}
	}
	p := Start(t, "wait", nil, started)
	<-ready
	require.NoError(t, p.Stop())
	require.EqualValues(t, 2, last.Load())

	p = Start(t, "wait", nil, started)
	<-ready
	p.Kill()
	require.EqualValues(t, 1, last.Load())
	require.ErrorContains(t, p.Wait(), "killed")
}
