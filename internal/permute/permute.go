// Package permute shuffles the numbers below a bound so that successive numbers
// look unrelated, and can be put back.
//
// It is a Feistel network (Luby and Rackoff, How to Construct Pseudorandom
// Permutations, 1988) over the smallest power of two that holds the domain, walked
// until it lands in the domain (Black and Rogaway, Ciphers with Arbitrary Finite
// Domains, 2002). The round function is a mixer, not a cipher: it hides numbers from
// the curious, not from a cryptanalyst.
package permute

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// pairs is how many times both halves are mixed: 6 rounds.
const pairs = 3

// A Permutation of the numbers from 0 to domain-1. It is immutable.
type Permutation struct {
	domain      uint64
	low         uint // bits of the low half
	lowMask     uint64
	round       [2 * pairs]uint64
	shift, back uint // that bring a mixed word down to the high and the low half
}

// New returns the permutation of 0 to domain-1 that key selects; domain is 2 to
// 2^63-1, the key any bytes. It never changes: numbers that were handed out stay
// what they are in every release.
func New(key []byte, domain int64) Permutation {
	width := uint(max(2, bits.Len64(uint64(domain)-1)))
	low := width / 2
	p := Permutation{
		domain: uint64(domain), low: low, lowMask: 1<<low - 1,
		shift: 64 - (width - low), back: 64 - low,
	}
	// The domain is part of the seed: with one key, the order numbers of one shop and
	// the links of another are shuffled differently.
	seed := binary.BigEndian.AppendUint64([]byte("spillway permute 1"), uint64(domain))
	seed = append(seed, key...)
	for i := range p.round {
		sum := sha256.Sum256(append(seed, byte(i)))
		p.round[i] = binary.BigEndian.Uint64(sum[:])
	}
	return p
}

// Permute returns where x goes. x is below the domain. The mean number of walks is
// below 2 for every domain, 1.25 for 62^7.
func (p *Permutation) Permute(x int64) int64 {
	v := uint64(x)
	for {
		high, low := v>>p.low, v&p.lowMask
		for i := 0; i < len(p.round); i += 2 {
			high ^= mix(low, p.round[i]) >> p.shift
			low ^= mix(high, p.round[i+1]) >> p.back
		}
		if v = high<<p.low | low; v < p.domain {
			return int64(v)
		}
	}
}

// Invert returns the x that Permute takes to y. y is below the domain.
func (p *Permutation) Invert(y int64) int64 {
	v := uint64(y)
	for {
		high, low := v>>p.low, v&p.lowMask
		for i := len(p.round) - 2; i >= 0; i -= 2 {
			low ^= mix(high, p.round[i+1]) >> p.back
			high ^= mix(low, p.round[i]) >> p.shift
		}
		if v = high<<p.low | low; v < p.domain {
			return int64(v)
		}
	}
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, Fast Splittable
// Pseudorandom Number Generators, 2014), keyed. Its high bits depend on all of x.
func mix(x, key uint64) uint64 {
	x = (x ^ key) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27 ^ key>>31) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Holds reports whether x is in the domain.
func (p *Permutation) Holds(x int64) bool { return x >= 0 && uint64(x) < p.domain }
