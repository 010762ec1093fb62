package sale

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spillway-go/spillway/lock"
	"github.com/spillway-go/spillway/stock"
)

// maxLag is how long SQL may be away before no more orders are taken: they would only
// be in Redis until then.
const maxLag = 10 * time.Minute

// A live is a room's stock as this server works on it.
type live struct {
	room, host, limit int64
	buckets           int
	stock             *stock.Activity
	events            chan stock.Event
}

// options is how the stock of a room behaves.
func (s *Sale) options(l *live) stock.Options {
	return stock.Options{
		Prefix:       prefix,
		Hold:         s.opts.Hold,
		UserSKULimit: l.limit,
		Buckets:      l.buckets,
		MaxLag:       maxLag,
		OnEvent:      func(e stock.Event) { l.events <- e },
		Logger:       s.env.Log,
	}
}

// of returns the stock of a room.
func (s *Sale) of(ctx context.Context, room int64) (*live, error) {
	shelf, err := s.shelf(ctx, room)
	if err != nil {
		return nil, err
	}
	if l := s.known(room); l != nil && l.limit == shelf.PerUser {
		return l, nil
	}
	s.making.Lock() // New asks Redis: once
	defer s.making.Unlock()
	if l := s.known(room); l != nil && l.limit == shelf.PerUser {
		return l, nil
	}
	l := &live{room: room, host: shelf.Host, limit: shelf.PerUser, buckets: shelf.Buckets, events: make(chan stock.Event, 64)}
	if l.stock, err = stock.New(s.env.Redis, activityOf(room), s.options(l)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.lives[room] = l
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return l, nil
}

func (s *Sale) known(room int64) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lives[room]
}

func (s *Sale) all() []*live {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*live, 0, len(s.lives))
	for _, l := range s.lives {
		all = append(all, l)
	}
	return all
}

// Run does what should happen without a request until ctx ends: every server works on
// the journal and the events of every live room, and one of them does the chores. It
// returns nil.
func (s *Sale) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.runJobs(ctx) })
	wg.Go(func() { s.every(ctx, time.Second, "chores", s.chores) })
	wg.Go(func() { s.every(ctx, figuresEvery, "figures", s.writeFigures) })
	wg.Go(func() { s.runWarehouse(ctx) })
	s.runLives(ctx)
	wg.Wait()
	return nil
}

// runLives keeps a set of loops for each room that is live.
func (s *Sale) runLives(ctx context.Context) {
	type loops struct {
		end  context.CancelFunc
		done chan struct{}
	}
	running := map[*live]loops{}
	for ctx.Err() == nil {
		rooms, err := s.liveRooms(ctx)
		if err == nil {
			wanted := map[*live]bool{}
			for _, room := range rooms {
				l, err := s.of(ctx, room)
				if err != nil {
					s.troubled(ctx, "attach", room, err)
					if l = s.known(room); l == nil {
						continue
					}
				}
				wanted[l] = true
				if _, ok := running[l]; !ok {
					within, end := context.WithCancel(ctx)
					running[l] = loops{end, make(chan struct{})}
					go func(done chan struct{}) {
						defer close(done)
						s.runLive(within, l)
					}(running[l].done)
				}
			}
			for l, r := range running {
				if !wanted[l] {
					r.end()
					<-r.done
					delete(running, l)
				}
			}
		} else {
			s.troubled(ctx, "look for live rooms", 0, err)
		}
		s.setClock(ctx)
		select {
		case <-s.wake:
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	for _, r := range running {
		r.end()
		<-r.done
	}
}

// liveRooms returns the rooms whose sale has not ended.
func (s *Sale) liveRooms(ctx context.Context) ([]int64, error) {
	return column[int64](s.env.DB.QueryContext(ctx, "SELECT room FROM sales WHERE state IN (?, ?)", stateOpen, stateClosing))
}

// runLive works on one room: holds that end, events, the journal.
func (s *Sale) runLive(ctx context.Context, l *live) {
	var wg sync.WaitGroup
	heard := make(chan struct{})
	wg.Go(func() {
		defer close(heard)
		_ = l.stock.Run(ctx) // it returns nil
	})
	wg.Go(func() { s.announceAll(ctx, l, heard) })
	wg.Go(func() { s.runJournal(ctx, l) })
	wg.Wait()
}

// runJournal brings the journal to SQL. Where Redis has lost what SQL has, after a
// FLUSHALL or a failover, orders are refused from the moment that this is noticed
// until the stock is rebuilt from SQL.
func (s *Sale) runJournal(ctx context.Context, l *live) {
	for ctx.Err() == nil {
		err := l.stock.RunJournal(ctx, sink{s.store, s, l.room})
		if err == nil {
			return
		}
		s.troubled(ctx, "journal", l.room, err)
		if errors.Is(err, stock.ErrForked) {
			if err = s.rebuild(ctx, l); err == nil {
				continue
			}
			s.troubled(ctx, "rebuild", l.room, err)
		}
		pause(ctx, time.Second)
	}
}

// chores are what one server does for all of them, whoever comes first each second.
func (s *Sale) chores(ctx context.Context) error {
	return s.alone(ctx, "chores", func(ctx context.Context) error {
		errs := []error{s.settleAll(ctx), s.closeAbandoned(ctx), s.closeAgain(ctx), s.sweepEnded(ctx)}
		rooms, err := s.liveRooms(ctx)
		errs = append(errs, err)
		for _, room := range rooms {
			errs = append(errs, s.projectAll(ctx, room), s.wind(ctx, room))
		}
		return errors.Join(errs...)
	})
}

// alone calls f unless another server is at it.
func (s *Sale) alone(ctx context.Context, what string, f func(context.Context) error) error {
	held, lease, err := s.locks.TryLock(ctx, "sale-"+what)
	if errors.Is(err, lock.ErrNotAcquired) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f(held), lease.Unlock(ctx))
}

// every calls f again and again until ctx ends.
func (s *Sale) every(ctx context.Context, d time.Duration, what string, f func(context.Context) error) {
	for ctx.Err() == nil {
		if err := f(ctx); err != nil {
			s.troubled(ctx, what, 0, err)
		}
		pause(ctx, d)
	}
}

// troubled reports that background work failed; it is tried again.
func (s *Sale) troubled(ctx context.Context, what string, room int64, err error) {
	if ctx.Err() == nil {
		s.env.Log.Warn("sale: trying again", "work", what, "room", room, "err", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// down says that a plain command did not reach Redis: nothing that matters happened.
func down(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", stock.ErrUnavailable, err)
}
