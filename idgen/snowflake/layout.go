package snowflake

import (
	"fmt"
	"time"
)

// A Layout says how an id is put together: from the top, a time in units since the
// epoch, the worker id, and a sequence. Processes whose ids must differ use the same.
// Ids of a layout of n bits in all are below 2^n; the most is 63.
type Layout struct {
	Epoch        time.Time     // the time that is 0
	Unit         time.Duration // 1 µs to 1 s, in whole microseconds
	TimeBits     int
	WorkerBits   int // 1 to 16
	SequenceBits int // ids in a unit and worker; 1 to 32
}

var epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

var (
	// Classic is the layout that gave these ids their name: 4,096 ids a millisecond
	// and worker, 1,024 workers, until 2094.
	Classic = Layout{Epoch: epoch, Unit: time.Millisecond, TimeBits: 41, WorkerBits: 10, SequenceBits: 12}
	// Dense never makes a process wait for the clock: 65,536 ids a millisecond and
	// worker, 64 workers, until 2094.
	Dense = Layout{Epoch: epoch, Unit: time.Millisecond, TimeBits: 41, WorkerBits: 6, SequenceBits: 16}
	// JSON stays below 2^53, which is what JavaScript and many JSON parsers read
	// without rounding: 2,048 ids each 10 ms and worker, 64 workers, until 2046.
	JSON = Layout{Epoch: epoch, Unit: 10 * time.Millisecond, TimeBits: 36, WorkerBits: 6, SequenceBits: 11}
)

// borrow is how far the time in ids may run ahead of the clock, in units: 100 ms or
// two units. A process that wants more ids in a unit than there are takes them from
// the next ones, and one whose clock was set back a little goes on.
func (l Layout) borrow() int64 {
	return max(2, int64(100*time.Millisecond/l.Unit))
}

// lead exceeds what any layout borrows.
const lead = 3 * time.Second

func (l Layout) check() error {
	switch {
	case l.Unit < time.Microsecond || l.Unit > time.Second || l.Unit%time.Microsecond != 0:
		return fmt.Errorf("%w: Layout.Unit %v, want whole microseconds from 1µs to 1s", ErrInvalid, l.Unit)
	case l.Epoch.Before(time.Unix(0, 0)) || l.Epoch.After(time.Unix(1<<33, 0)):
		return fmt.Errorf("%w: Layout.Epoch %v, want 1970 to 2242", ErrInvalid, l.Epoch)
	case l.TimeBits < 1 || l.TimeBits > 62:
		return fmt.Errorf("%w: Layout.TimeBits %d, want 1 to 62", ErrInvalid, l.TimeBits)
	case l.WorkerBits < 1 || l.WorkerBits > 16:
		return fmt.Errorf("%w: Layout.WorkerBits %d, want 1 to 16", ErrInvalid, l.WorkerBits)
	case l.SequenceBits < 1 || l.SequenceBits > 32:
		return fmt.Errorf("%w: Layout.SequenceBits %d, want 1 to 32", ErrInvalid, l.SequenceBits)
	case l.TimeBits+l.WorkerBits+l.SequenceBits > 63:
		return fmt.Errorf("%w: the bits of Layout sum up to %d, want at most 63", ErrInvalid, l.TimeBits+l.WorkerBits+l.SequenceBits)
	}
	return nil
}

// End returns when the time no longer fits its bits. Later than year 9999 is given
// as that.
func (l Layout) End() time.Time {
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	seconds := float64(int64(1)<<l.TimeBits) * l.Unit.Seconds()
	if seconds > far.Sub(time.Unix(0, 0)).Seconds() || l.Epoch.Unix()+int64(seconds) > far.Unix() {
		return far
	}
	return time.Unix(l.Epoch.Unix()+int64(seconds), 0).UTC()
}

// Split takes an id apart: when it was made, to the unit and at most 100 ms or two
// units late, by which worker, and its sequence number in that unit.
func (l Layout) Split(id int64) (at time.Time, worker int, sequence int64) {
	sequence = id & (1<<l.SequenceBits - 1)
	worker = int(id >> l.SequenceBits & (1<<l.WorkerBits - 1))
	us := (id >> (l.SequenceBits + l.WorkerBits)) * l.Unit.Microseconds()
	return time.UnixMicro(l.Epoch.UnixMicro() + us).UTC(), worker, sequence
}
