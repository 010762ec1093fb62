package ratelimit

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestBadLimits(t *testing.T) {
	good := PerSecond(10)
	with := func(change func(*Limit)) []Limit {
		l := good
		change(&l)
		return []Limit{l}
	}
	for name, c := range map[string]struct {
		limits []Limit
		says   string
	}{
		"none":            {nil, "0 limits"},
		"too many":        {make([]Limit, 9), "9 limits"},
		"zero":            {[]Limit{{}}, "Rate is 0"},
		"rate 0":          {[]Limit{PerSecond(0)}, "Rate is 0"},
		"rate -1":         {[]Limit{PerMinute(-1)}, "Rate is -1"},
		"rate huge":       {[]Limit{PerHour(1<<40 + 1)}, "Rate"},
		"burst 0":         {[]Limit{good.WithBurst(0)}, "Burst is 0"},
		"burst -5":        {[]Limit{good.WithBurst(-5)}, "Burst is -5"},
		"burst huge":      {[]Limit{good.WithBurst(1 << 62)}, "Burst"},
		"period 0":        {with(func(l *Limit) { l.Period = 0 }), "Period is 0s"},
		"period -1s":      {with(func(l *Limit) { l.Period = -time.Second }), "Period is -1s"},
		"period 1ns":      {with(func(l *Limit) { l.Period = 1 }), "Period is 1ns"},
		"period 1.5µs":    {with(func(l *Limit) { l.Period = 1500 }), "whole microseconds"},
		"period 2 years":  {with(func(l *Limit) { l.Period = 2 * maxPeriod }), "Period"},
		"algorithm":       {with(func(l *Limit) { l.Algorithm = 4 }), "Algorithm is 4"},
		"window burst":    {with(func(l *Limit) { l.Algorithm, l.Burst = FixedWindow, 11 }), "Burst is 11"},
		"log too long":    {with(func(l *Limit) { l.Algorithm, l.Rate, l.Burst = SlidingLog, 1001, 1001 }), "at most 1000"},
		"window overflow": {with(func(l *Limit) { l.Algorithm, l.Rate, l.Burst, l.Period = SlidingWindow, 1<<40, 1<<40, time.Hour }), "overflows"},
		"sum overflow":    {[]Limit{PerSecond(1_000_003).WithBurst(1 << 40)}, "overflows"},
		"refill for ever": {[]Limit{{Rate: 1, Period: maxPeriod, Burst: 11}}, "ten years"},
		"refill, far":     {[]Limit{{Rate: 1, Period: maxPeriod, Burst: 1 << 40}}, "ten years"},
		"same names":      {[]Limit{good, good}, `named "10/1s"`},
	} {
		_, err := NewLocal(c.limits)
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, c.says, name)
		_, err = New(redis.NewClient(&redis.Options{}), c.limits, Options{})
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

func TestBadOptions(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{})
	defer rdb.Close()
	window := PerSecond(10)
	window.Algorithm = FixedWindow
	_, err := New(nil, []Limit{window}, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	for says, o := range map[string]Options{
		"Lease 1ns":             {Lease: 1},
		"Lease -1":              {Lease: -1},
		"Lease 1m":              {Lease: time.Minute},
		"WhenDown 3":            {WhenDown: 3},
		"Instances -1":          {Instances: -1},
		"Instances 1000001":     {Instances: 1_000_001},
		"Timeout 1ns":           {Timeout: 1},
		"Timeout -1s":           {Timeout: -time.Second},
		"not GCRA":              {Lease: time.Second},
		"Options.Instances 999": {Instances: 999},
	} {
		limits := []Limit{PerHour(1)}
		if says == "not GCRA" {
			limits = append(limits, window)
		}
		if says == "Options.Instances 999" {
			limits = []Limit{{Rate: 1, Period: maxPeriod, Burst: 1}}
		}
		_, err := New(rdb, limits, o)
		require.ErrorIs(t, err, ErrInvalid, says)
		require.ErrorContains(t, err, says)
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		limit     Limit
		instances int
		want      Limit
	}{
		{PerSecond(100), 4, Limit{Rate: 25, Period: time.Second, Burst: 25}},
		{PerSecond(7), 3, Limit{Rate: 7, Period: 3 * time.Second, Burst: 2}},
		{PerSecond(6).WithBurst(1), 4, Limit{Rate: 3, Period: 2 * time.Second, Burst: 1}},
		{Limit{Rate: 10, Period: time.Hour, Burst: 10, Algorithm: SlidingLog}, 3, Limit{Rate: 3, Period: time.Hour, Burst: 3, Algorithm: SlidingLog}},
		{Limit{Rate: 2, Period: time.Hour, Burst: 2, Algorithm: FixedWindow}, 3, Limit{Rate: 1, Period: time.Hour, Burst: 1, Algorithm: FixedWindow}},
	} {
		got, err := share([]Limit{c.limit}, c.instances)
		require.NoError(t, err)
		c.want.Name = "limit 1"
		want, err := compile([]Limit{c.want})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}
