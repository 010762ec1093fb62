package cache

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"
	"unsafe"
)

// What Redis keeps under a key is an envelope:
//
//	byte  0      format, 1
//	byte  1      flags
//	bytes 2–17   version: µs of server time when it was written, and larger than
//	             that of the entry it replaced; 16 digits
//	bytes 18–22  how long it is fresh, in ms from its version, big endian
//	bytes 23–27  how long until it is refreshed in the background, in ms, 0: never
//	bytes 28–31  how long the load took, in µs
//	bytes 32–43  token of the call that wrote it
//	bytes 44–    the value as the codec wrote it
//
// The first 18 bytes name an entry: scripts compare them. Every later format keeps
// them, and the token, where they are, so that releases with different formats can
// share a Redis: each takes the other's entries for misses and overwrites them.
const (
	format     = 1
	headSize   = 2
	nameSize   = 18 // what names an entry
	tailSize   = 26 // from the TTLs to the token
	headerSize = nameSize + tailSize
	tokenSize  = 12

	flagNull    = 1 << 0 // the source has no such thing
	flagWritten = 1 << 1 // by Set or Add, not by a load; drop.lua knows it
)

// A header is what an envelope says beside the value.
type header struct {
	flags       byte
	version     int64
	fresh, soft time.Duration // from version
	took        time.Duration
}

var errEnvelope = errors.New("cache: not an entry of this release")

// sealHead and sealTail write down what a script needs to make an envelope: it
// puts the version between them. The value is appended to the tail.
func sealHead(flags byte) string { return string([]byte{format, flags}) }

func appendTail(dst []byte, fresh, soft, took time.Duration, token string) []byte {
	dst = appendMillis(dst, fresh)
	dst = appendMillis(dst, soft)
	dst = binary.BigEndian.AppendUint32(dst, uint32(min(took.Microseconds(), 1<<32-1)))
	return append(dst, token...)
}

func appendMillis(dst []byte, d time.Duration) []byte {
	ms := uint64(d.Milliseconds())
	return append(dst, byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
}

// unseal reads the header of an envelope and returns the value, which shares
// s's memory.
func unseal(s string) (h header, value []byte, err error) {
	if len(s) < headerSize || s[0] != format {
		return h, nil, errEnvelope
	}
	h.flags = s[1]
	h.version, err = strconv.ParseInt(s[headSize:nameSize], 10, 64)
	if err != nil {
		return h, nil, errEnvelope
	}
	b := asBytes(s)
	h.fresh = millis(b[18:23])
	h.soft = millis(b[23:28])
	h.took = time.Duration(binary.BigEndian.Uint32(b[28:32])) * time.Microsecond
	return h, b[headerSize:], nil
}

func millis(b []byte) time.Duration {
	_ = b[4]
	return time.Duration(uint64(b[0])<<32|uint64(b[1])<<24|uint64(b[2])<<16|uint64(b[3])<<8|uint64(b[4])) * time.Millisecond
}

// entryName returns the part of an envelope, of whatever format, that names it.
func entryName(s string) string { return s[:min(len(s), nameSize)] }

// asBytes and asString spare a copy of each value that comes from Redis. The
// string belongs to this package alone, and nobody reads it any more once its
// bytes were given away.
func asBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
