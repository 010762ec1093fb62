package delayqueue

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/script"
)

// A modelJob is a job as the model has it. Times are the whole seconds of the
// operations: what is due, or ends, falls between half past one and the next.
type modelJob struct {
	body, unique          string
	max, attempts, crashs int
	state                 State
	due, end              time.Time
	token                 string // of the delivery that runs
	last                  string // of the delivery that settled it last
}

// A model says what the queue should answer, one operation after the other.
type model struct {
	jobs     map[string]*modelJob
	verdicts map[string]modelVerdict
	unique   map[string]string
	paused   bool
}

type modelVerdict struct {
	state State
	token string
	gen   int64
}

const (
	modelCrashes  = 2
	modelAttempts = 3
	modelLease    = 20500 * time.Millisecond
)

func gen(t time.Time) int64 { return t.UnixMilli() / time.Minute.Milliseconds() }

func (m *model) verdict(now time.Time, id string) State {
	if v, ok := m.verdicts[id]; ok && gen(now)-v.gen <= 1 {
		return v.state
	}
	return 0
}

func (m *model) add(now time.Time, id, body, unique string, p Policy, maxAttempts int, due time.Time) (string, error) {
	if m.jobs[id] != nil {
		return id, ErrDuplicate
	}
	switch m.verdict(now, id) {
	case Finished:
		return id, ErrFinished
	case Cancelled:
		return id, ErrCancelled
	}
	if holder := m.unique[unique]; holder != "" {
		j := m.jobs[holder]
		switch {
		case p == Reject:
			return holder, ErrNotUnique
		case j.state == Waiting && p == Extend:
			j.due = due
			return holder, nil
		case j.state == Waiting:
			j.body, j.due, j.max, j.attempts, j.crashs = body, due, maxAttempts, 0, 0
			j.last = ""
			return holder, nil
		}
	}
	m.jobs[id] = &modelJob{body: body, unique: unique, max: maxAttempts, state: Waiting, due: due}
	if unique != "" {
		m.unique[unique] = id
	}
	return id, nil
}

func (m *model) free(id string) {
	if u := m.jobs[id].unique; u != "" && m.unique[u] == id {
		delete(m.unique, u)
	}
}

func (m *model) end(now time.Time, id string, s State, token string) {
	m.free(id)
	delete(m.jobs, id)
	m.verdicts[id] = modelVerdict{s, token, gen(now)}
}

func (m *model) die(id string) {
	m.free(id)
	m.jobs[id].state = Dead
}

// change is what Cancel and Reschedule answer to a job that does not wait.
func (m *model) change(now time.Time, id string, cancel bool) error {
	j := m.jobs[id]
	switch {
	case j != nil && j.state == Running:
		return ErrActive
	case j != nil && (j.state == Waiting || cancel):
		return nil
	case j != nil:
		return ErrDead
	}
	switch m.verdict(now, id) {
	case Finished:
		return ErrFinished
	case Cancelled:
		if !cancel {
			return ErrCancelled
		}
		return nil
	}
	return ErrNotFound
}

// claim returns the ids that a claim of k gets, in order.
func (m *model) claim(now time.Time, k int, token string) (got []string) {
	if m.paused {
		return nil
	}
	pick := func(s State, when func(*modelJob) time.Time) []string {
		ids := slices.Collect(maps.Keys(m.jobs))
		ids = slices.DeleteFunc(ids, func(id string) bool { return m.jobs[id].state != s || when(m.jobs[id]).After(now) })
		slices.SortFunc(ids, func(a, b string) int {
			return cmp.Or(when(m.jobs[a]).Compare(when(m.jobs[b])), cmp.Compare(a, b))
		})
		return ids
	}
	expired := pick(Running, func(j *modelJob) time.Time { return j.end })
	due := pick(Waiting, func(j *modelJob) time.Time { return j.due })
	all := slices.Concat(expired, due)
	for i, id := range all[:min(k, len(all))] {
		j := m.jobs[id]
		if i < len(expired) {
			if j.crashs++; j.crashs >= modelCrashes {
				m.die(id)
				j.last = ""
				continue
			}
		}
		j.state, j.token, j.end = Running, token, now.Add(modelLease)
		got = append(got, id)
	}
	return got
}

func (m *model) settle(now time.Time, id, token, verb string, delay time.Duration) int64 {
	j := m.jobs[id]
	if j == nil || j.state != Running || j.token != token {
		v := m.verdicts[id]
		switch {
		case j == nil && m.verdict(now, id) != 0 && v.token == token && token != "":
			return settledDone
		case j != nil && j.last == token && j.state == Dead && verb == "R":
			return settledDead
		case j != nil && j.last == token:
			return settledDone
		}
		return settledLost
	}
	if verb == "A" {
		m.end(now, id, Finished, token)
		return settledDone
	}
	j.last, j.token, j.state, j.due = token, "", Waiting, now.Add(delay)
	if verb != "S" {
		j.attempts++
	}
	if verb == "D" || j.attempts >= cmp.Or(j.max, modelAttempts) && verb == "R" {
		m.die(id)
		if verb == "R" {
			return settledDead
		}
	}
	return settledDone
}

func (m *model) redrive(now time.Time, id string) int {
	j := m.jobs[id]
	if j == nil || j.state != Dead {
		return 0
	}
	j.state, j.attempts, j.crashs, j.last = Waiting, 0, 0, ""
	j.due = now
	if j.unique != "" && m.unique[j.unique] == "" {
		m.unique[j.unique] = id
	}
	return 1
}

// history runs random operations on a queue, replies to some of which are lost, and
// returns the first in which the queue and the model differ. The fewer ids, the more
// happens to each.
func history(rt *rapid.T, t *testing.T, q *Queue, faults *redistest.Faults, ids []string) error {
	ctx := t.Context()
	m := &model{jobs: map[string]*modelJob{}, verdicts: map[string]modelVerdict{}, unique: map[string]string{}}
	s := &q.shards[0]
	claimers := []*claimer{newClaimer(q, s, newToken(), modelLease), newClaimer(q, s, newToken(), modelLease)}
	var known []*Delivery
	anID, odds := rapid.SampledFrom(ids), rapid.IntRange(0, 9)
	seconds := rapid.IntRange(-3, 40)
	for step := range rapid.IntRange(30, 60).Draw(rt, "steps") {
		// To the next second, or far beyond it.
		now := time.Now()
		now = now.Truncate(time.Second).Add(time.Second)
		if odds.Draw(rt, "pause") == 0 {
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(rt, "seconds")) * time.Second)
		}
		time.Sleep(time.Until(now))
		fired := faults.Fired(redistest.CutAfter)
		for range rapid.IntRange(0, 2).Draw(rt, "lost") {
			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		}
		var what string
		var got, want any
		op := rapid.SampledFrom([]string{"add", "add", "claim", "claim", "settle", "settle", "extend", "cancel", "reschedule", "redrive", "pause"}).Draw(rt, "op")
		id := anID.Draw(rt, "id")
		switch op {
		case "add":
			sec := time.Duration(seconds.Draw(rt, "due"))*time.Second + 600*time.Millisecond
			j := Job{ID: id, Body: []byte(fmt.Sprint(step)), At: now.Add(sec), MaxAttempts: rapid.IntRange(0, 3).Draw(rt, "max")}
			due := j.At
			if sec >= 0 && odds.Draw(rt, "delay") < 5 {
				j.At, j.Delay = time.Time{}, sec
			}
			unique, p := "", Reject
			if odds.Draw(rt, "unique") < 7 {
				unique = rapid.SampledFrom([]string{"u", "v"}).Draw(rt, "key")
				p = rapid.SampledFrom([]Policy{Reject, Replace, Extend}).Draw(rt, "policy")
				j.Unique = &Unique{unique, p}
			}
			what = fmt.Sprintf("add %s %q %v", id, unique, p)
			gotID, err := q.Add(ctx, j)
			wantID, wantErr := m.add(now, id, string(j.Body), unique, p, j.MaxAttempts, due)
			got, want = []any{gotID, kind(err)}, []any{wantID, kind(wantErr)}
		case "claim":
			c, k := claimers[odds.Draw(rt, "consumer")%2], 1+odds.Draw(rt, "k")%4
			token := fmt.Sprintf("%s.%d", c.consumer, c.number)
			what = fmt.Sprintf("claim %d", k)
			claimed, err := c.claim(ctx, k)
			gotIDs, wantIDs := []string{fmt.Sprint(err)}, append([]string{"<nil>"}, m.claim(now, k, token)...)
			for _, d := range claimed.jobs {
				gotIDs = append(gotIDs, d.ID)
				if j := m.jobs[d.ID]; j != nil {
					j.token = d.token
					if d.Attempt != j.attempts+1 || d.Crashes != j.crashs || string(d.Body) != j.body {
						return fmt.Errorf("step %d, %s: %s is attempt %d, crashes %d, %q; want %+v", step, what, d.ID, d.Attempt, d.Crashes, d.Body, j)
					}
				}
			}
			known = append(known, claimed.jobs...)
			got, want = gotIDs, wantIDs
		case "settle", "extend":
			if len(known) == 0 {
				faults.Clear()
				continue
			}
			// Mostly one of the latest.
			d := known[len(known)-1-rapid.IntRange(0, min(len(known)-1, 5)).Draw(rt, "delivery")]
			if op == "extend" {
				what = "extend " + d.ID
				held, err := q.extend(ctx, s, []*Delivery{d}, modelLease)
				j := m.jobs[d.ID]
				holds := j != nil && j.state == Running && j.token == d.token
				if holds {
					j.end = now.Add(modelLease)
				}
				got, want = fmt.Sprint(held, err), fmt.Sprint([]bool{holds}, nil)
				break
			}
			verb := rapid.SampledFrom([]string{"A", "R", "S", "D"}).Draw(rt, "verb")
			delay := time.Duration(odds.Draw(rt, "retry"))*time.Second + 600*time.Millisecond
			what = fmt.Sprintf("settle %s %s", verb, d.ID)
			code, err := q.settle(ctx, s, &settleOp{id: d.ID, token: d.token, verb: verb, delay: delay, text: "no"})
			got, want = []any{code, err}, []any{m.settle(now, d.ID, d.token, verb, delay), error(nil)}
		case "cancel":
			what = "cancel " + id
			wantErr := m.change(now, id, true)
			if wantErr == nil && m.jobs[id] != nil {
				m.end(now, id, Cancelled, "")
			}
			got, want = kind(q.Cancel(ctx, id)), kind(wantErr)
		case "reschedule":
			due := now.Add(time.Duration(seconds.Draw(rt, "due"))*time.Second + 600*time.Millisecond)
			what = "reschedule " + id
			wantErr := m.change(now, id, false)
			if wantErr == nil {
				m.jobs[id].due = due
			}
			err := q.Reschedule(ctx, id, due)
			if errors.Is(err, ErrUnknown) && faults.Fired(redistest.CutAfter) > fired && (errors.Is(wantErr, ErrActive) || errors.Is(wantErr, ErrFinished)) {
				err = wantErr // it cannot know whether it was this call that started the job
			}
			got, want = kind(err), kind(wantErr)
		case "redrive":
			what = "redrive " + id
			n, err := q.Redrive(ctx, id)
			got, want = fmt.Sprint(n, err), fmt.Sprint(m.redrive(now, id), nil)
		case "pause":
			m.paused = !m.paused
			what = "pause"
			err := q.Resume
			if m.paused {
				err = q.Pause
			}
			got, want = kind(err(ctx)), ""
		}
		faults.Clear()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("step %d, %s: %v, want %v", step, what, got, want)
		}
		if err := m.compare(t, q, now, ids); err != nil {
			return fmt.Errorf("step %d, after %s: %w", step, what, err)
		}
	}
	if m.paused {
		return q.Resume(ctx)
	}
	return nil
}

// kind names the error that matters.
func kind(err error) string {
	for _, e := range []error{ErrUnknown, ErrFinished, ErrCancelled, ErrDuplicate, ErrNotUnique, ErrActive, ErrDead, ErrNotFound} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// compare looks at every job, and at what is kept beside.
func (m *model) compare(t *testing.T, q *Queue, now time.Time, ids []string) error {
	counts := map[State]int64{}
	for _, id := range ids {
		i, err := q.Get(t.Context(), id)
		j := m.jobs[id]
		if j == nil {
			if want := m.verdict(now, id); want != i.State || errors.Is(err, ErrNotFound) != (want == 0) {
				return fmt.Errorf("%s is %v (%w), want %v", id, i.State, err, want)
			}
			continue
		}
		counts[j.state]++
		if i.State != j.state || string(i.Body) != j.body || i.Attempts != j.attempts || i.Crashes != j.crashs {
			return fmt.Errorf("%s is %+v (%w), want %+v", id, i, err, j)
		}
		if late := i.Due.Sub(j.due); j.state == Waiting && (late < 0 || late > 390*time.Millisecond) {
			return fmt.Errorf("%s is due %v, want %v", id, i.Due, j.due)
		}
		if j.state == Waiting {
			j.due = i.Due // to the millisecond, which an attempt more moves
		}
	}
	st, err := q.Inspect(t.Context())
	if err != nil || st.Waiting != counts[Waiting] || st.Running != counts[Running] || st.Dead != counts[Dead] {
		return fmt.Errorf("the queue holds %d waiting, %d running, %d dead (%w), want %v", st.Waiting, st.Running, st.Dead, err, counts)
	}
	return nil
}

// bubbled runs one history in a bubble of its own, and counts the replies lost.
func bubbled(t *testing.T, rt *rapid.T, ids []string, lost *int) (err error) {
	var thrown any // by rapid, where it stops a history
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		defer func() { thrown = recover() }()
		var faults redistest.Faults
		q := open(t, b.Client(faults.Options), Options{MaxAttempts: modelAttempts, MaxCrashes: modelCrashes})
		err = history(rt, t, q, &faults, ids)
		*lost += faults.Fired(redistest.CutAfter)
	})
	if thrown != nil {
		panic(thrown)
	}
	return err
}

func TestHistories(t *testing.T) {
	t.Parallel()
	lost := 0
	rapid.Check(t, func(rt *rapid.T) {
		if err := bubbled(t, rt, []string{"a", "b", "c", "d", "e", "f"}, &lost); err != nil {
			rt.Fatal(err)
		}
	})
	t.Logf("%d replies lost", lost)
	require.NotZero(t, lost)
}

// The model notices a queue that is broken in one of these ways.
func TestHistoriesCatch(t *testing.T) {
	for name, c := range map[string]struct {
		script   **script.Script
		lua      string
		old, new string
	}{
		"an ack without a fence":         {&settleScript, settleLua, "sub(state, 10, 10 + #token) ~= token .. ' '", "false"},
		"a retry that is not remembered": {&settleScript, settleLua, "s.token, s.last, s.kind = '-', token, 'W'", "s.token, s.last, s.kind = '-', '-', 'W'"},
		"a crash that does not count":    {&claimScript, claimLua, "s.crashes = s.crashes + 1", "s.crashes = s.crashes"},
		"a claim that forgets its jobs":  {&claimScript, claimLua, "claimed[c + 1] = id", ""},
		"the newest first":               {&claimScript, claimLua, "call('ZRANGEBYSCORE', KEYS[1], '-inf', now,", "call('ZREVRANGEBYSCORE', KEYS[1], now, '-inf',"},
		"bodies mixed up":                {&claimScript, claimLua, "found[i - from], stated[i - from]", "found[1], stated[i - from]"},
		"due before leases":              {&claimScript, claimLua, "local ids = call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, k)", "local ids = {}"},
		"an add without a tombstone":     {&addScript, addLua, "elseif gone[id] then", "elseif false then"},
		"an add twice":                   {&addScript, addLua, "if there then", "if false then"},
		"a cancel that frees no key":     {&changeScript, changeLua, "if key ~= '' then free_unique({ key, id }) end", ""},
		"a cancel of what runs":          {&changeScript, changeLua, "if kind == 'R' or kind == 'U' then", "if false then"},
		"an extend of anyone":            {&extendScript, extendLua, "sub(state, 10, 10 + #token) == token .. ' '", "true"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, c.lua, c.old)
			whole := *c.script
			defer func() { *c.script = whole }()
			*c.script = script.New(script.Token, readLua, strings.Replace(c.lua, c.old, c.new, 1))
			var caught error
			n, lost := 0, 0
			for round := 0; caught == nil && round < 10; round++ {
				rapid.Check(t, func(rt *rapid.T) {
					if caught == nil {
						n++
						caught = bubbled(t, rt, []string{"a", "b", "c"}, &lost)
					}
				})
			}
			require.Error(t, caught)
			t.Logf("history %d: %v", n, caught)
		})
	}
}
