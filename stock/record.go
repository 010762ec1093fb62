package stock

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The formats that settle.lua writes; its header describes them.

func appendNetstring(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

func appendItems(b []byte, items []Item) []byte {
	for _, it := range items {
		b = appendNetstring(b, it.SKU)
		b = strconv.AppendInt(b, it.Qty, 10)
		b = append(b, ';')
	}
	return append(b, '.')
}

// A reader takes a format apart from the left. After its first failure it keeps
// failing, so that only the end needs a check.
type reader struct {
	rest string
	bad  bool
}

func (r *reader) fail() { r.rest, r.bad = "", true }

func (r *reader) byte() byte {
	if r.rest == "" {
		r.fail()
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

// number reads digits up to and with the byte end.
func (r *reader) number(end byte) int64 {
	digits, rest, ok := strings.Cut(r.rest, string(end))
	if !ok {
		r.fail()
		return 0
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		r.fail()
		return 0
	}
	r.rest = rest
	return n
}

func (r *reader) netstring() string {
	n := r.number(':')
	if n > int64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

// items reads items up to and with the '.' that ends them.
func (r *reader) items() []Item {
	var items []Item
	for r.rest != "" && r.rest[0] != '.' {
		sku := r.netstring()
		items = append(items, Item{SKU: sku, Qty: r.number(';')})
	}
	r.byte()
	if r.bad {
		return nil
	}
	return items
}

// field reads the field of a record, and returns the id in it.
func (r *reader) field() string {
	end := strings.IndexAny(r.rest, ":+")
	if end < 0 {
		r.fail()
		return ""
	}
	n, err := strconv.Atoi(r.rest[:end])
	if err != nil || n < 0 || n > len(r.rest)-end-1 {
		r.fail()
		return ""
	}
	id := r.rest[end+1 : end+1+n]
	r.rest = r.rest[end+1+n:]
	return id
}

// A record is what Redis remembers of an id.
type record struct {
	state     State
	user      string
	due       time.Time // zero unless reserved
	requested []Item
	granted   []Item
}

var states = map[byte]State{'R': Reserved, 'D': Sold, 'C': Confirmed, 'X': Cancelled, 'E': Expired, 'A': restocked}

func parseRecord(s string) (record, error) {
	r := reader{rest: s}
	var rec record
	rec.state = states[r.byte()]
	digits := r.rest[:len(r.rest)-len(strings.TrimLeft(r.rest, "0123456789"))]
	r.rest = r.rest[len(digits):]
	if ms, _ := strconv.ParseInt(digits, 10, 64); ms > 0 {
		rec.due = time.UnixMilli(ms)
	}
	partial := false
	switch r.byte() {
	case ';':
	case '/':
		granted := reader{rest: r.netstring()}
		rec.granted = granted.items()
		partial = true
		r.bad = r.bad || granted.bad
	default:
		r.fail()
	}
	r.byte() // the verb, or '-' where a cancel came first
	rec.user = r.netstring()
	rec.requested = r.items()
	if !partial {
		rec.granted = rec.requested
	}
	if r.bad || rec.state == None {
		return record{}, fmt.Errorf("stock: cannot read order record %q: written by another version?", s)
	}
	return rec, nil
}

// missing returns the requested items that were not granted.
func (rec record) missing() []Item {
	if len(rec.granted) == len(rec.requested) {
		return nil
	}
	var out []Item
	for _, it := range rec.requested {
		found := false
		for _, g := range rec.granted {
			found = found || g.SKU == it.SKU
		}
		if !found {
			out = append(out, it)
		}
	}
	return out
}

// A meta is the activity's own state, the field "@" of its levels.
type meta struct {
	gen  int64 // of the orders hashes
	open int64 // holds
	due  time.Time
	last string // entry; empty if there is nothing yet
}

func parseMeta(packed string) (m meta, err error) {
	if packed == "" {
		return m, nil
	}
	f := strings.Fields(packed) // gen gen_at seen due open cursor last
	if len(f) != 7 {
		return m, fmt.Errorf("cannot read %q, written by another version?", packed)
	}
	m.last = f[6]
	m.gen, _ = strconv.ParseInt(f[0], 10, 64)
	m.open, _ = strconv.ParseInt(f[4], 10, 64)
	if ms, _ := strconv.ParseInt(f[3], 10, 64); ms > 0 {
		m.due = time.UnixMilli(ms)
	}
	return m, nil
}
