package cache

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// A Codec writes values down for Redis and reads them again.
type Codec[V any] interface {
	// Append appends v to dst and returns the longer slice.
	Append(dst []byte, v V) ([]byte, error)
	// Decode reads what Append wrote. It may keep src, which nobody else changes. An
	// error makes the entry a miss, which is then overwritten.
	Decode(src []byte) (V, error)
}

// JSON returns the codec of encoding/json.
func JSON[V any]() Codec[V] { return jsonCodec[V]{} }

type jsonCodec[V any] struct{}

func (jsonCodec[V]) Append(dst []byte, v V) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (jsonCodec[V]) Decode(src []byte) (v V, err error) {
	err = json.Unmarshal(src, &v)
	return v, err
}

// defaultCodec takes bytes and strings as they are.
func defaultCodec[V any]() Codec[V] {
	if c, ok := any(bytesCodec{}).(Codec[V]); ok {
		return c
	}
	if c, ok := any(stringCodec{}).(Codec[V]); ok {
		return c
	}
	return JSON[V]()
}

type bytesCodec struct{}

func (bytesCodec) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }

// Decode bounds the slice, so that appending to it makes a new one.
func (bytesCodec) Decode(src []byte) ([]byte, error) { return src[:len(src):len(src)], nil }

type stringCodec struct{}

func (stringCodec) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (stringCodec) Decode(src []byte) (string, error)           { return asString(src), nil }

// Compress returns a codec that writes like c, or like the default if c is nil,
// and compresses with DEFLATE what is longer than above bytes, if that makes it
// shorter. It costs one byte an entry. Readers need not know above.
func Compress[V any](c Codec[V], above int) Codec[V] {
	if c == nil {
		c = defaultCodec[V]()
	}
	return &compressed[V]{codec: c, above: above}
}

type compressed[V any] struct {
	codec   Codec[V]
	above   int
	writers sync.Pool
}

// What the first byte of a compressed codec's value says of the rest.
const (
	stored   byte = 0
	deflated byte = 1
)

// maxInflated bounds what a few bytes may grow into.
const maxInflated = 1 << 30

func (c *compressed[V]) Append(dst []byte, v V) ([]byte, error) {
	at := len(dst)
	dst, err := c.codec.Append(append(dst, stored), v)
	if err != nil || len(dst)-at-1 <= c.above {
		return dst, err
	}
	var short bytes.Buffer
	w, ok := c.writers.Get().(*flate.Writer)
	if ok {
		w.Reset(&short)
	} else if w, err = flate.NewWriter(&short, flate.BestSpeed); err != nil {
		return dst, err
	}
	defer c.writers.Put(w)
	if _, err = w.Write(dst[at+1:]); err == nil {
		err = w.Close()
	}
	if err != nil || short.Len() >= len(dst)-at-1 {
		return dst, err
	}
	return append(append(dst[:at], deflated), short.Bytes()...), nil
}

func (c *compressed[V]) Decode(src []byte) (v V, err error) {
	if len(src) == 0 {
		return v, fmt.Errorf("cache: compressed value is empty")
	}
	switch src[0] {
	case stored:
		return c.codec.Decode(src[1:])
	case deflated:
		b, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(src[1:])), maxInflated))
		if err != nil {
			return v, fmt.Errorf("cache: compressed value: %w", err)
		}
		return c.codec.Decode(b)
	}
	return v, fmt.Errorf("cache: compressed value begins with %d", src[0])
}
