package ratelimit

import "strings"

// slotLanes is the number of lanes in which the calls of a Cluster's clients fly.
// Nodes own ranges of slots, so that a lane of neighbouring slots mostly meets one
// node, and a node that is stuck or down holds up its own keys only, while the keys
// of a lane still share round trips.
const slotLanes = 16

// laneNames are the names of the lanes; other clients have only the first.
var laneNames = [slotLanes]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"}

// laneOf returns the number of a lane.
func laneOf(name string) int { return int(name[0] - 'a') }

// slotLane returns the lane of a key: the top bits of its slot, which is the CRC-16
// (XMODEM) of what stands in the first braces.
func slotLane(key string) int {
	open := strings.IndexByte(key, '{')
	end := open + 1 + strings.IndexByte(key[open+1:], '}')
	crc := uint16(0)
	for i := open + 1; i < end; i++ {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc%16384) / (16384 / slotLanes)
}
