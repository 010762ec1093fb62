package script

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// An attempt is a command that is sent at most once, and knows whether it was.
type attempt struct {
	*redis.Cmd
	payload payload
	replied bool // a whole reply, neither an error nor nil, was read
}

// A payload is the script or its SHA-1 on the way to the server. go-redis
// calls MarshalBinary when it writes the command to a connection, after every
// dial, handshake and wait for the pool: as long as writes is 0, nothing ran.
// That is exact where a list of errors could not be, as dialers and handshakes
// fail in as many ways as there are dialers.
type payload struct {
	text   []byte
	writes int
}

func (p *payload) MarshalBinary() ([]byte, error) {
	p.writes++
	return p.text, nil
}

// String is what a tracing hook sees.
func (p *payload) String() string { return string(p.text) }

// attempt returns the next attempt of a flight.
func (s *Script) attempt(ctx context.Context, c Call, f *flight) *attempt {
	a := &attempt{payload: payload{text: s.sha}}
	args := make([]any, 3+len(c.Keys)+len(c.Args))
	args[0], args[1], args[2] = "evalsha", &a.payload, len(c.Keys)
	if f.source {
		args[0], a.payload.text = "eval", s.source
	}
	for i, key := range c.Keys {
		args[3+i] = key
	}
	argv := args[3+len(c.Keys):]
	copy(argv, c.Args)
	if c.Resend > 0 {
		argv[c.Resend-1] = "0"
		if f.mayRun {
			argv[c.Resend-1] = "1"
		}
	}
	a.Cmd = redis.NewCmd(ctx, args...)
	if len(c.Keys) > 0 {
		a.SetFirstKeyPos(3)
	}
	return a
}

// NoRetry keeps go-redis from sending the command again after a failure in
// which it may have run. It still follows MOVED and ASK.
func (a *attempt) NoRetry() bool { return true }

// SetErr keeps an answer that has arrived: when a pipeline breaks, go-redis
// marks all its commands with the error, those already answered too.
func (a *attempt) SetErr(err error) {
	if a.replied {
		return
	}
	a.replied = err == nil
	a.Cmd.SetErr(err)
}

// outcome returns nil if the attempt was answered.
func (a *attempt) outcome() error {
	if a.replied {
		return nil
	}
	err := a.Err()
	switch {
	case err == nil:
		return errNoOutcome
	case errors.Is(err, redis.Nil):
		return nil
	}
	return err
}
