package key

import "strconv"

// slots is the number of hash slots of a Redis Cluster.
const slots = 16384

// Spread returns n spaces of one object: its buckets, for work that should not
// all meet in one slot. Their slots are distinct, and bucket i lies in the middle
// half of the i-th of n equal parts of the slots: a Cluster gives each master one
// part, so that n buckets lie on n masters, or evenly on fewer. They depend on
// nothing but the arguments, and on all of them: buckets of another n are other
// keys, and no Space of New has one of them. n is 1 to 1000.
func Spread(prefix, pkg string, layout int, name string, n int) []Space {
	if prefix == "" {
		prefix = defaultPrefix
	}
	before := Escape(prefix) + ":" + pkg + strconv.Itoa(layout) + ":{"
	spaces := make([]Space, n)
	for i := range spaces {
		width := slots / n
		from := slots*i/n + width/4
		for suffix := 0; ; suffix++ {
			// Escape writes no "%b".
			tag := Escape(name) + "%b" + strconv.Itoa(n) + "." + strconv.Itoa(i) + "." + strconv.Itoa(suffix)
			if s := Slot(tag); s >= from && s < from+max(1, width/2) {
				spaces[i] = Space{before + tag + "}"}
				break
			}
		}
	}
	return spaces
}

// Slot returns the Cluster slot of a hash tag: CRC16 (XMODEM), as the Redis Cluster
// specification has it.
func Slot(tag string) int {
	crc := uint16(0)
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}
