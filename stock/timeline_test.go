package stock

import (
	"slices"
)

// A timeline is how a value changed, by the milliseconds of the server.
type timeline[V comparable] struct{ points []point[V] }

type point[V any] struct {
	ms int64
	v  V
}

func (t *timeline[V]) add(ms int64, v V) { t.points = append(t.points, point[V]{ms, v}) }

// during tells whether the value was v at some moment from ms to ms; before its
// first point it is the zero value.
func (t *timeline[V]) during(from, to int64, v V) bool {
	var before V
	if t == nil {
		return v == before
	}
	i := len(t.points)
	for i > 0 && t.points[i-1].ms >= from {
		i--
		if t.points[i].ms <= to && t.points[i].v == v {
			return true
		}
	}
	if i > 0 {
		before = t.points[i-1].v
	}
	return v == before
}

// forget drops all but what is needed for times from ms on.
func (t *timeline[V]) forget(ms int64) {
	i := 0
	for i+1 < len(t.points) && t.points[i+1].ms < ms {
		i++
	}
	t.points = slices.Delete(t.points, 0, i)
}
