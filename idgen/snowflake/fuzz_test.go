package snowflake

import "testing"

// What a script answers is read without trust: an error or numbers, never a panic.
func FuzzParseLease(f *testing.F) {
	f.Add(int64(3), "0", "1700000000000000", uint8(3))
	f.Add(int64(-1), "", "x", uint8(3))
	f.Fuzz(func(t *testing.T, id int64, floor, ceiling string, n uint8) {
		reply := []any{id, floor, ceiling, nil}[:n%5]
		got, _, _, err := parseLease(reply)
		if err == nil && (len(reply) != 3 || got != id) {
			t.Fatalf("%v was read as %d", reply, got)
		}
	})
}

// A layout splits what it put together.
func FuzzSplit(f *testing.F) {
	f.Add(int64(1), uint8(41), uint8(10), uint8(12))
	f.Fuzz(func(t *testing.T, id int64, timeBits, workerBits, sequenceBits uint8) {
		l := Classic
		l.TimeBits, l.WorkerBits, l.SequenceBits = int(timeBits), int(workerBits), int(sequenceBits)
		if l.check() != nil {
			return
		}
		id &= 1<<(l.TimeBits+l.WorkerBits+l.SequenceBits) - 1
		at, worker, sequence := l.Split(id)
		units := (at.UnixMicro() - l.Epoch.UnixMicro()) / l.Unit.Microseconds()
		if l.TimeBits > 50 {
			return // beyond what a time.Time in microseconds holds
		}
		if back := units<<(l.WorkerBits+l.SequenceBits) | int64(worker)<<l.SequenceBits | sequence; back != id {
			t.Fatalf("%d became %d", id, back)
		}
	})
}
