package cache

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// A Source is where the truth is, and how its things are named and written down.
type Source[K comparable, V any] struct {
	// Load returns the thing of a key, or ErrNotFound. Its ctx is no caller's: it
	// ends after Options.LoadTimeout, and carries the values of the ctx of the first
	// who asked. A panic becomes an error. Nil for a cache that is only written to:
	// then what is nowhere is ErrNotFound.
	Load func(ctx context.Context, key K) (V, error)
	// LoadMany returns the things of many keys at once, for GetMany; keys that it
	// leaves out are not found. If nil, GetMany calls Load for each. If Load is nil,
	// Get calls it with one key.
	LoadMany func(ctx context.Context, keys []K) (map[K]V, error)
	// Key returns the name of a key, under which all levels keep it: different keys
	// must have different names. It is called once for each key of a call. It may be
	// nil if K is string, int, int32, int64, uint32 or uint64.
	Key func(K) string
	// Clone returns a deep copy, which everyone gets who is answered from a value
	// that others have too. If nil, values are shared and must not be changed.
	Clone func(V) V
	// Codec writes values down for Redis. If nil, []byte and string are taken as they
	// are and everything else is JSON.
	Codec Codec[V]
	// Later calls Delete with keys after that time: a delay queue, for DeleteTwice to
	// survive this process. If nil, a timer does it.
	Later func(ctx context.Context, after time.Duration, keys []K) error
}

// complete fills in what may be left out, and returns how keys are named.
func (s *Source[K, V]) complete() (keyName func(K) string, err error) {
	if s.Codec == nil {
		s.Codec = defaultCodec[V]()
	}
	keyName = s.Key
	if keyName == nil {
		switch any(*new(K)).(type) {
		case string, int, int32, int64, uint32, uint64:
			keyName = plainName[K]
		default:
			return nil, fmt.Errorf("%w: Source.Key is nil, and %v is not string, int, int32, int64, uint32 or uint64", ErrInvalid, reflect.TypeFor[K]())
		}
	}
	if load := s.LoadMany; s.Load == nil && load != nil {
		s.Load = func(ctx context.Context, key K) (v V, err error) {
			found, err := load(ctx, []K{key})
			if err != nil {
				return v, err
			}
			v, ok := found[key]
			if !ok {
				return v, ErrNotFound
			}
			return v, nil
		}
	}
	return keyName, nil
}

func plainName[K comparable](key K) string {
	switch k := any(key).(type) {
	case string:
		return k
	case int:
		return strconv.Itoa(k)
	case int32:
		return strconv.FormatInt(int64(k), 10)
	case int64:
		return strconv.FormatInt(k, 10)
	case uint32:
		return strconv.FormatUint(uint64(k), 10)
	case uint64:
		return strconv.FormatUint(k, 10)
	}
	panic("cache: a kind of key that New refuses")
}
