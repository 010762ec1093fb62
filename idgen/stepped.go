package idgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
)

// SteppedStore returns a Store over several others, on servers of their own, that
// goes on while one of them answers. Of N stores, number k (counted from 0) hands
// out the numbers k+N, k+2N, and so on: whatever its own counter says, times N, plus
// k. No two can hand out the same. Its numbers are unique, but increase only roughly:
// the counters move at different speeds.
//
// N and the order of the stores are part of the ids. All processes use the same,
// for ever; another N wants counters that begin above all ids so far. 1 to 64 stores,
// none of which may be a SteppedStore.
func SteppedStore(stores ...Store) (Store, error) {
	if len(stores) == 0 || len(stores) > 64 {
		return nil, fmt.Errorf("%w: %d stores, want 1 to 64", ErrInvalid, len(stores))
	}
	for i, s := range stores {
		if _, nested := s.(*steppedStore); s == nil || nested {
			return nil, fmt.Errorf("%w: store %d is %T, want a store of one counter", ErrInvalid, i, s)
		}
	}
	return &steppedStore{stores: stores}, nil
}

type steppedStore struct {
	stores []Store
	turn   atomic.Uint64
}

// Claim asks the stores in turn, and the next one if one fails.
func (s *steppedStore) Claim(ctx context.Context, biz string, step int64) (Range, error) {
	n := int64(len(s.stores))
	begin := s.turn.Add(1) - 1
	var failures []error
	for i := range uint64(n) {
		k := int64((begin + i) % uint64(n))
		r, err := s.stores[k].Claim(ctx, biz, step)
		if err == nil {
			r, err = r.checked()
		}
		if err == nil && (r.Stride != 1 || r.last() > (math.MaxInt64-k)/n) {
			err = fmt.Errorf("%w: %+v times %d leaves 63 bits, or has a stride", ErrExhausted, r, n)
		}
		if err == nil {
			return Range{First: r.First*n + k, Count: r.Count, Stride: n}, nil
		}
		failures = append(failures, fmt.Errorf("store %d of %d: %w", k, n, err))
		if ctx.Err() != nil {
			break
		}
	}
	return Range{}, s.all(failures)
}

// all joins what the stores said. One exhausted or misused store among those that
// are only down is not final: the others may come back.
func (s *steppedStore) all(failures []error) error {
	final := 0
	for _, err := range failures {
		if errors.Is(err, ErrExhausted) || errors.Is(err, ErrInvalid) {
			final++
		}
	}
	err := errors.Join(failures...)
	if final > 0 && final < len(s.stores) {
		return fmt.Errorf("%w: %s", ErrUnavailable, text(err))
	}
	return err
}
