package idgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success.
var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("idgen: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("idgen: closed")
	// ErrUnavailable is a store out of reach, and no ids left at hand: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a claim whose reply was lost. Its range may have been taken and
	// is never used: a hole.
	ErrUnknown = script.ErrUnknown

	// ErrContended is an optimistic claim that lost every try to other processes.
	ErrContended = errors.New("idgen: lost every optimistic try")
	// ErrExhausted is a counter at the end of its numbers. It does not pass.
	ErrExhausted = errors.New("idgen: no numbers left")
	// ErrWentBack is a store that handed out numbers which this process had been
	// given before, as after a restored backup or a failover that lost writes. The
	// range is thrown away; those that other processes got may have been handed out
	// twice.
	ErrWentBack = errors.New("idgen: the store went back")
)

// A Range is what a Store hands out: the numbers First, First+Stride, and so on,
// Count of them. They are nobody else's.
type Range struct {
	First  int64 // at least 1
	Count  int64 // at least 1
	Stride int64 // 0 means 1
}

// A Store hands out ranges of numbers, from a counter per biz: a kind of ids, such
// as "order". No number is ever handed out twice. Claim may be called from many
// goroutines and processes.
//
// Claim gives step numbers, or fewer if the store sees fit. An error that wraps
// ErrInvalid or ErrExhausted is taken as final; after any other a Segment
// tries again later. A claim that fails half-way may leave a hole, never more.
type Store interface {
	Claim(ctx context.Context, biz string, step int64) (Range, error)
}

const (
	maxBiz  = 128     // bytes
	maxStep = 1 << 32 // numbers in one claim
)

// checkBiz demands what every store can hold.
func checkBiz(biz string) error {
	if biz == "" || len(biz) > maxBiz || !utf8.ValidString(biz) || strings.ContainsRune(biz, 0) {
		return fmt.Errorf("%w: biz %q, want 1 to %d bytes of UTF-8 without NUL", ErrInvalid, biz, maxBiz)
	}
	return nil
}

func checkClaim(biz string, step int64) error {
	if err := checkBiz(biz); err != nil {
		return err
	}
	if step < 1 || step > maxStep {
		return fmt.Errorf("%w: step %d, want 1 to 2^32", ErrInvalid, step)
	}
	return nil
}

// checked returns r with its stride, or what is wrong with it.
func (r Range) checked() (Range, error) {
	if r.Stride == 0 {
		r.Stride = 1
	}
	if r.First < 1 || r.Count < 1 || r.Stride < 1 || (math.MaxInt64-r.First)/r.Stride < r.Count-1 {
		return r, fmt.Errorf("%w: the store handed out %+v, want First, Count and Stride of at least 1 and a last number below 2^63", ErrInvalid, r)
	}
	return r, nil
}

func (r Range) last() int64 { return r.First + (r.Count-1)*max(1, r.Stride) }
