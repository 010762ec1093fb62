package delayqueue

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of one job and one call.
const (
	maxID          = 256 // bytes
	maxUniqueKey   = 256 // bytes
	maxMaxAttempts = 1_000_000
	maxDelay       = 10 * 365 * 24 * time.Hour
	maxMany        = 1000    // jobs in one AddMany
	maxManyBytes   = 8 << 20 // bytes of their ids and bodies
)

// A Job is something to do later.
type Job struct {
	// ID names the job, up to 256 bytes; one is generated if it is empty. While a job
	// is in the queue and for Options.ReplayWindow after, no other can take its id.
	ID string
	// Body is for the handler, up to Options.MaxBody bytes.
	Body []byte
	// At is when the job is due, literally: a time in the past is due at once. Fractions
	// of a millisecond are rounded up.
	At time.Time
	// Delay is after how long it is due, counted by Redis's clock from the moment in
	// which it is stored: a producer's wrong clock moves nothing. Up to 10 years. At
	// and Delay exclude each other; with neither, the job is due now.
	Delay time.Duration
	// Unique, if not nil, keeps two jobs with one key from waiting at the same time.
	Unique *Unique
	// MaxAttempts is how often the handler may fail; Options.MaxAttempts if 0.
	MaxAttempts int
}

// Unique is a key that one waiting job has at a time. A job that ends or dies frees
// its key.
//
// The key decides the shard, and so does an ID: in a queue of several shards leave
// Job.ID empty.
type Unique struct {
	Key    string // 1 to 256 bytes
	Policy Policy
}

// A Policy is what happens to a job whose unique key another has.
type Policy uint8

// Reject refuses the new job with ErrNotUnique. Replace gives the waiting job the new
// body, time and MaxAttempts. Extend gives it the new time alone, which debounces.
//
// A job that is running can be changed no more: Replace and Extend then store the new
// one, which takes over the key, and Reject refuses it.
const (
	Reject Policy = iota
	Replace
	Extend
)

// A State is where a job stands.
type State uint8

// The states of a job. Finished and Cancelled are known for Options.ReplayWindow.
const (
	Waiting   State = iota + 1 // until Info.Due, for its first run or a retry
	Running                    // leased to a worker until Info.Lease
	Dead                       // failed for good at Info.Died
	Finished                   // its handler returned nil
	Cancelled                  // by Cancel
)

var stateNames = [...]string{"none", "waiting", "running", "dead", "finished", "cancelled"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Info is what the queue knows of a job. Times are Redis's, in milliseconds.
type Info struct {
	ID       string
	State    State
	Body     []byte
	Due      time.Time // when it runs next, or was due when it ran last
	Lease    time.Time // when its lease ends, if it is running
	Died     time.Time // when it died, if it is dead
	Attempts int       // how often its handler failed
	Crashes  int       // how many workers it outlived
	Error    string    // of the last failure, up to 1 KiB
}

// An AddResult is what became of one job of AddMany.
type AddResult struct {
	ID  string // of the job that was stored, or of the one that it replaced or extended
	Err error  // as Add returns it
}

// check returns what is wrong with a job.
func (j *Job) check(opts *Options) error {
	switch {
	case len(j.ID) > maxID:
		return fmt.Errorf("%w: Job.ID of %d bytes, want at most %d", ErrInvalid, len(j.ID), maxID)
	case len(j.Body) > opts.MaxBody:
		return fmt.Errorf("%w: Job.Body of %d bytes, want at most %d: store it elsewhere and send its key", ErrInvalid, len(j.Body), opts.MaxBody)
	case j.Delay < 0 || j.Delay > maxDelay:
		return fmt.Errorf("%w: Job.Delay %v, want 0 to %v", ErrInvalid, j.Delay, maxDelay)
	case j.Delay != 0 && !j.At.IsZero():
		return fmt.Errorf("%w: Job.Delay %v and Job.At %v, want one of them", ErrInvalid, j.Delay, j.At)
	case j.MaxAttempts < 0 || j.MaxAttempts > maxMaxAttempts:
		return fmt.Errorf("%w: Job.MaxAttempts %d, want 0 to %d", ErrInvalid, j.MaxAttempts, maxMaxAttempts)
	case j.Unique == nil:
		return checkAt("Job.At", j.At)
	case j.Unique.Key == "" || len(j.Unique.Key) > maxUniqueKey:
		return fmt.Errorf("%w: Job.Unique.Key of %d bytes, want 1 to %d", ErrInvalid, len(j.Unique.Key), maxUniqueKey)
	case j.Unique.Policy > Extend:
		return fmt.Errorf("%w: Job.Unique.Policy %d, want Reject, Replace or Extend", ErrInvalid, j.Unique.Policy)
	}
	return checkAt("Job.At", j.At)
}

func checkAt(field string, at time.Time) error {
	if at.Year() > 9999 {
		return fmt.Errorf("%w: %s %v, want a year up to 9999", ErrInvalid, field, at)
	}
	return nil
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%w: id of %d bytes, want 1 to %d", ErrInvalid, len(id), maxID)
	}
	return nil
}

// millis rounds up: a job is never early. A time before 1970 is as past as 1970.
func millis(at time.Time) int64 {
	ms := at.UnixMilli()
	if at.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return max(ms, 0)
}

// newID returns 16 characters, 96 random bits.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// record writes the job down as read.lua explains.
func (j *Job) record(token string) []byte {
	b := make([]byte, 0, len(token)+len(j.Body)+32)
	b = append(b, token...)
	if j.MaxAttempts > 0 {
		b = strconv.AppendInt(b, int64(j.MaxAttempts), 10)
	}
	b = append(b, ':')
	if j.Unique != nil {
		b = strconv.AppendInt(b, int64(len(j.Unique.Key)), 10)
	}
	b = append(b, ':')
	if j.Unique != nil {
		b = append(b, j.Unique.Key...)
	}
	return append(b, j.Body...)
}

var errFormat = errors.New("delayqueue: a job in Redis is not in the format of this release")

// parseRecord returns the body of a record and the job's own MaxAttempts.
func parseRecord(r string) (body string, maxAttempts int, err error) {
	if len(r) < 10 {
		return "", 0, errFormat
	}
	if r[8:10] == "::" {
		return r[10:], 0, nil
	}
	attempts, rest, ok := strings.Cut(r[8:], ":")
	if !ok {
		return "", 0, errFormat
	}
	length, rest, ok := strings.Cut(rest, ":")
	if !ok {
		return "", 0, errFormat
	}
	n, err := number(length)
	if err != nil || n > len(rest) {
		return "", 0, errFormat
	}
	if maxAttempts, err = number(attempts); err != nil {
		return "", 0, errFormat
	}
	return rest[n:], maxAttempts, nil
}

// number parses the digits of a record, none being 0.
func number(digits string) (int, error) {
	if digits == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), err
}

// parseState adds what a state says to i.
func parseState(s string, i *Info) error {
	if len(s) < 9 {
		return errFormat
	}
	switch s[0] {
	case 'R', 'U':
		i.State = Running
	case 'W':
		i.State = Waiting
	case 'D':
		i.State = Dead
	default:
		return errFormat
	}
	fields := strings.SplitN(s[9:], " ", 7)
	if len(fields) != 7 {
		return errFormat
	}
	var errs [4]error
	i.Attempts, errs[0] = number(fields[2])
	i.Crashes, errs[1] = number(fields[3])
	due, err := strconv.ParseInt(fields[4], 10, 64)
	errs[2] = err
	i.Due = time.UnixMilli(due)
	length, rest, ok := strings.Cut(fields[6], ":")
	n, err := number(length)
	errs[3] = err
	if errors.Join(errs[:]...) != nil || !ok || n > len(rest) {
		return errFormat
	}
	i.Error = rest[n:]
	return nil
}
