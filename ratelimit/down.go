package ratelimit

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/breaker"
)

var (
	// errLate is a round trip that takes longer than Options.Timeout. Whether it
	// happens is unknown.
	errLate = fmt.Errorf("%w: no answer within the timeout", ErrUnknown)
	// errDown is a round trip that was not made.
	errDown = fmt.Errorf("%w: no answer to others", ErrUnavailable)
)

type counters struct {
	fromMemory, fromLease, whenDown, lost, overloaded atomic.Uint64
}

// Stats returns the counters. It does no I/O.
func (l *Limiter) Stats() Stats {
	s := Stats{
		FromMemory: l.stats.fromMemory.Load(), FromLease: l.stats.fromLease.Load(),
		WhenDown: l.stats.whenDown.Load(), Lost: l.stats.lost.Load(), Overloaded: l.stats.overloaded.Load(),
	}
	if l.rdb == nil {
		return s
	}
	g := l.group.Stats()
	s.Calls, s.Batches = g.Items, g.Flights
	for _, w := range l.watch {
		s.Outages += w.Opened()
		s.Down = s.Down || w.Open()
	}
	return s
}

// isDown reports whether err says that Redis cannot be used at present: it was not
// reached, did not answer in time, or answered that it does not serve. An error in
// the script, a wrong password or a client that was closed are none of that: no
// policy should hide them.
func isDown(err error) bool {
	if errors.Is(err, redis.ErrClosed) {
		return false
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown)
	}
	for _, code := range []string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "TRYAGAIN", "NOREPLICAS",
		"BUSY", "OOM", "MISCONF", "MOVED", "ASK", "ERR max number of clients"} {
		if redis.HasErrorPrefix(reply, code) {
			return true
		}
	}
	return false
}

// minRetry is the shortest RetryAfter of FailClosed: less would only be a busy loop.
const minRetry = 100 * time.Millisecond

// whenDown decides a run by policy.
func (l *Limiter) whenDown(key string, q run, watch *breaker.Breaker, a *answer) {
	l.stats.whenDown.Add(1)
	switch {
	case l.opts.WhenDown == FailOpen:
		a.source, a.granted, a.left = FromFailOpen, q.k, l.burst
		return
	case l.opts.WhenDown == LocalShare && l.local.holds(q.n):
		a.source = FromLocalShare
		l.local.take(key, q, &a.verdict)
		return
	case l.opts.WhenDown == LocalShare:
		a.source = FromLocalShare // more than a share can ever have: wait for Redis
	default:
		a.source = FromFailClosed
	}
	a.us = max(watch.Wait(), minRetry).Microseconds()
}

// holds reports whether n units can ever be there at once.
func (l *local) holds(n int64) bool {
	for i := range l.rules {
		if n > l.rules[i].burst {
			return false
		}
	}
	return true
}

// share divides limits between instances. A share is exact for GCRA; where what is
// to be divided is less than the instances, everybody gets one.
func share(limits []Limit, instances int) ([]rule, error) {
	n := int64(instances)
	parts := make([]Limit, len(limits))
	for i, l := range limits {
		p := l
		p.Burst = max(1, l.Burst/n)
		if l.Algorithm == GCRA {
			g := gcd(l.Rate, n)
			p.Rate, p.Period = l.Rate/g, l.Period*time.Duration(n/g)
			if p.Period/time.Duration(n/g) != l.Period {
				p.Period = 0 // overflow: compile says so
			}
		} else {
			p.Rate = p.Burst
		}
		if p.Name == "" { // the shares of different limits may look alike
			p.Name = fmt.Sprintf("limit %d", i+1)
		}
		parts[i] = p
	}
	rules, err := compile(parts)
	if err != nil {
		return nil, fmt.Errorf("%w, as the share of Options.Instances %d", err, instances)
	}
	return rules, nil
}
