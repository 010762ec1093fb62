package hotkey

import (
	"strconv"
	"strings"

	"github.com/spillway-go/spillway/internal/key"
)

const (
	// layout is the number of the meaning of the names; see internal/key.
	layout = 1
	slots  = 16384
	// tries is how many numbers are tried before copies may share a master: many times
	// what the fewest slots that a master has in practice need.
	tries = 20_000
)

// A namer chooses the names of copies: the first numbers that, put into the hash
// tag, lead to different slots and masters.
type namer struct {
	prefix  string
	copies  int
	masters int
	master  []int // of each slot; nil if nobody told
}

func newNamer(opts CopiesOptions) namer {
	n := namer{prefix: opts.Prefix, copies: opts.Copies}
	if opts.Master == nil {
		return n
	}
	numbers := map[string]int{}
	n.master = make([]int, slots)
	for slot := range n.master {
		name := opts.Master(slot)
		number, ok := numbers[name]
		if !ok {
			number = len(numbers)
			numbers[name] = number
		}
		n.master[slot] = number
	}
	n.masters = len(numbers)
	return n
}

func (n *namer) names(of string) []string {
	names := make([]string, 0, n.copies)
	taken := make(map[int]bool, n.copies)
	on := make([]int, n.masters) // copies on each master
	for number := 0; len(names) < n.copies; number++ {
		name := key.New(n.prefix, "hotkey", layout, of+"#"+strconv.Itoa(number)).Key("copy")
		slot := slotOf(name)
		if taken[slot] {
			continue
		}
		if n.masters > 0 {
			m := n.master[slot]
			// Nobody gets a second one before everybody has one.
			if on[m] > len(names)/n.masters && number < tries {
				continue
			}
			on[m]++
		}
		taken[slot] = true
		names = append(names, name)
	}
	return names
}

// slotOf returns the Cluster slot of a key that has a hash tag.
func slotOf(name string) int {
	_, tag, _ := strings.Cut(name, "{")
	tag, _, _ = strings.Cut(tag, "}")
	crc := uint16(0)
	for i := range len(tag) {
		crc = crc<<8 ^ crc16[byte(crc>>8)^tag[i]]
	}
	return int(crc) % slots
}

// crc16 is the table of CRC-16/XMODEM, which Cluster hashes keys with.
var crc16 = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()
