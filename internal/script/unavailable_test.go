package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// outlast lets a goroutine of go-redis end: after as many failed dials as its
// pool has room, it dials once a second until the client is closed. To be called
// before the client is made.
func outlast(t *testing.T) { t.Cleanup(func() { time.Sleep(2 * time.Second) }) }

func TestRefusedDialsAreWaitedFor(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb, s := b.Client(faults.Options), newShop(t)
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: 4})
		got, err := sellBounded.Run(t.Context(), rdb, s.call("a"))
		require.NoError(t, err)
		require.Equal(t, int64(1), got)
		require.Equal(t, 4, faults.Fired(redistest.RefuseDial))
		s.require(t, b.Client(), 1, 1, 0)
	})
}

func TestUnavailableAfterAboutASecond(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, s := b.Client(faults.Options), newShop(t)
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		for _, run := range []func() error{
			func() error { _, err := sellToken.Run(t.Context(), rdb, s.call("a")); return err },
			func() error {
				_, errs := sellToken.RunMany(t.Context(), rdb, []Call{s.call("b"), s.call("c")})
				require.ErrorIs(t, errs[1], ErrUnavailable)
				return errs[0]
			},
		} {
			begin := time.Now()
			err := run()
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.NotErrorIs(t, err, ErrUnknown)
			require.GreaterOrEqual(t, time.Since(begin), healFor)
			require.Less(t, time.Since(begin), healFor+2*maxPause)
		}
		s.require(t, b.Client(), 0, 0, 0)
	})
}

// After an attempt that may have run, a refused dial is no proof that nothing
// happened.
func TestOnlyAnAnswerEndsTheUnknown(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, clean, s := b.Client(faults.Options), b.Client(), newShop(t)
		_, err := sellToken.Run(t.Context(), rdb, s.call("first"))
		require.NoError(t, err)
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		begin := time.Now()
		_, err = sellToken.Run(t.Context(), rdb, s.call("second"))
		require.ErrorIs(t, err, ErrUnknown)
		require.NotErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the last cause")
		require.GreaterOrEqual(t, time.Since(begin), resolveFor)
		require.Less(t, time.Since(begin), resolveFor+2*maxPause)
		require.Equal(t, 1, faults.Fired(redistest.CutAfter))
		s.require(t, clean, 2, 2, 0)

		faults.Clear()
		got, err := sellToken.Run(t.Context(), rdb, s.call("second"))
		require.NoError(t, err)
		require.Equal(t, int64(2), got, "the caller repeats, and learns")
	})
}

// Whether a script ran that changes nothing is of no interest, nor is it where the caller
// says so.
func TestAReadIsNeverUnknown(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, call := b.Client(faults.Options), Call{Keys: []string{redistest.Prefix(t)}}
		read, write := New(Read, `return redis.call("EXISTS", KEYS[1])`), New(State, `return redis.call("UNLINK", KEYS[1])`)
		for _, s := range []*Script{read, write} {
			got, err := s.Run(t.Context(), rdb, call)
			require.NoError(t, err)
			require.Equal(t, int64(0), got)
			faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha"})
			got, err = s.Run(t.Context(), rdb, call)
			require.NoError(t, err, "it runs again")
			require.Equal(t, int64(0), got)

			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
			faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
			_, err = s.Run(t.Context(), rdb, call)
			if s == write {
				require.ErrorIs(t, err, ErrUnknown)
				err = fmt.Errorf("wrapped: %w", err)
			}
			err = NotDone(err)
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.NotErrorIs(t, err, ErrUnknown)
			faults.Clear()
		}
		_, err := New(Read, `return nothing.at_all`).Run(t.Context(), rdb, call)
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrUnknown)
		refused := &Refused{Code: "SOLDOUT"}
		require.Equal(t, error(refused), NotDone(refused), "what is no such error stays")
	})
}

func TestTheEndOfTheContext(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, clean, s := b.Client(faults.Options), b.Client(), newShop(t)
		_, err := sellToken.Run(t.Context(), rdb, s.call("first"))
		require.NoError(t, err)

		// Before anything is sent.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = sellToken.Run(ctx, rdb, s.call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.Canceled)
		_, errs := sellToken.RunMany(ctx, rdb, []Call{s.call("a")})
		require.ErrorIs(t, errs[0], ErrUnavailable)
		require.ErrorIs(t, errs[0], context.Canceled)
		s.require(t, clean, 1, 1, 0)

		// While an outcome is unknown.
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		begin := time.Now()
		_, err = sellToken.Run(ctx, rdb, s.call("b"))
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the last cause")
		require.Equal(t, 2*time.Second, time.Since(begin), "not a moment past ctx")

		// While the server is waited for.
		ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = sellToken.Run(ctx, rdb, s.call("c"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrUnknown)
	})
}

// With ContextTimeoutEnabled a connection sees the deadline before ctx does; the
// error wraps ctx's all the same.
func TestADeadlineInFlight(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ContextTimeoutEnabled = true })
		s := newShop(t)
		_, err := sellBounded.Run(t.Context(), rdb, s.call("first"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha"})
		begin := time.Now()
		_, err = sellBounded.Run(ctx, rdb, s.call("second"))
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 200*time.Millisecond, time.Since(begin))
		require.Equal(t, 1, faults.Fired(redistest.LoseReply))
	})
}

// A dialer may fail in any way, and so may a handshake; what counts is that
// nothing was sent.
func TestWhateverFailsBeforeTheSendingIsNothing(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		fail := errors.New("x509: certificate has expired")
		custom := b.Client(func(o *redis.Options) {
			o.Dialer = func(context.Context, string, string) (net.Conn, error) { return nil, fail }
		})
		_, err := sellBounded.Run(t.Context(), custom, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, fail)

		var faults redistest.Faults
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "hello", Times: -1})
		handshake := b.Client(faults.Options)
		_, err = sellBounded.Run(t.Context(), handshake, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, io.EOF)
		require.NotZero(t, faults.Fired(redistest.CutAfter))

		full := b.Client(func(o *redis.Options) { o.PoolSize, o.PoolTimeout = 1, 10*time.Millisecond })
		conn := full.Conn()
		require.NoError(t, conn.Ping(t.Context()).Err()) // holds the only connection
		_, err = sellBounded.Run(t.Context(), full, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, redis.ErrPoolTimeout)
		require.NoError(t, conn.Close())

		require.NoError(t, full.Close())
		begin := time.Now()
		_, err = sellBounded.Run(t.Context(), full, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, redis.ErrClosed)
		require.Zero(t, time.Since(begin), "a closed client does not open again")
	})
}
