package sale

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// figuresEvery is how often SQL is told what Redis has left.
const figuresEvery = 15 * time.Second

// A Figure is the stock of a product in a room.
type Figure struct {
	Room     int64  `json:"room"`
	SKU      string `json:"sku"`
	Left     int64  `json:"left"`
	Reserved int64  `json:"reserved"`
	Sold     int64  `json:"sold"`
}

// Figures returns the stock of all rooms that are live, as Redis has it.
func (s *Sale) Figures(ctx context.Context) ([]Figure, error) {
	rooms, err := s.liveRooms(ctx)
	if err != nil {
		return nil, err
	}
	figures := []Figure{}
	for _, room := range rooms {
		v, err := s.shelf(ctx, room)
		if err != nil {
			return nil, err
		}
		levels, err := s.levels.Get(ctx, room)
		if err != nil {
			return nil, err
		}
		for _, it := range v.Items {
			if l, ok := levels[it.SKU]; ok && !it.Elsewhere {
				figures = append(figures, Figure{room, it.SKU, l.Left, l.Reserved, l.Sold})
			}
		}
	}
	return figures, nil
}

// writeFigures writes the stock of all live rooms to SQL, and sees to it that Redis has
// what was put on their shelves: a server may have died between the two.
func (s *Sale) writeFigures(ctx context.Context) error {
	return s.alone(ctx, "figures", func(ctx context.Context) error {
		rooms, err := s.liveRooms(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for _, room := range rooms {
			errs = append(errs, s.load(ctx, room))
		}
		at := s.now()
		figures, err := s.Figures(ctx)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, s.env.Tx(ctx, func(tx *sql.Tx) error {
			for _, f := range figures {
				if err := s.writeFigure(ctx, tx, f, at); err != nil {
					return err
				}
			}
			return nil
		}))
		return errors.Join(errs...)
	})
}

func (s *Sale) writeFigure(ctx context.Context, tx *sql.Tx, f Figure, at int64) error {
	if _, err := tx.ExecContext(ctx, s.env.InsertNew("stock_figures", "activity", "sku", "left_units", "reserved", "sold", "updated_ms"),
		activityOf(f.Room), f.SKU, 0, 0, 0, 0); err != nil {
		return err
	}
	// Not over a newer one: a server that was stopped for a while may come late.
	_, err := tx.ExecContext(ctx, `UPDATE stock_figures SET left_units = ?, reserved = ?, sold = ?, updated_ms = ?
		WHERE activity = ? AND sku = ? AND updated_ms < ?`, f.Left, f.Reserved, f.Sold, at, activityOf(f.Room), f.SKU, at)
	return err
}
