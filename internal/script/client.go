package script

import (
	"reflect"

	"github.com/redis/go-redis/v9"
)

// NoClient reports whether rdb is nil, or an interface around a nil pointer, as a
// *redis.Client is that nobody has made yet. A call on that would panic later, in a
// goroutine whose panic nobody can recover.
func NoClient(rdb redis.UniversalClient) bool {
	v := reflect.ValueOf(rdb)
	return rdb == nil || v.Kind() == reflect.Pointer && v.IsNil()
}
