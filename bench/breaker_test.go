package bench

import (
	"errors"
	"testing"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/spillway-go/spillway/internal/breaker"
)

// BenchmarkBreaker makes calls that succeed, from all processors, through a circuit
// breaker that stays closed: what it costs while all is well.
func BenchmarkBreaker(b *testing.B) {
	ok := func() error { return nil }
	b.Run("spillway", func(b *testing.B) {
		c := breaker.New()
		through(b, func() error {
			if !c.Ready() {
				return errors.New("open")
			}
			err := ok()
			c.Done(err == nil)
			return err
		})
	})
	b.Run("gobreaker", func(b *testing.B) {
		c := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{})
		through(b, func() error {
			_, err := c.Execute(func() (any, error) { return nil, ok() })
			return err
		})
	})
	b.Run("failsafe-go", func(b *testing.B) {
		c := failsafe.With(circuitbreaker.NewWithDefaults[any]())
		through(b, func() error { return c.Run(ok) })
	})
}

func through(b *testing.B, call func() error) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
