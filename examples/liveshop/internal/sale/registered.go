package sale

import (
	"context"
	"errors"
	"fmt"
)

// Registered returns the products of a host, by SKU: those that a room of theirs sells
// when it opens, or can put on its shelf.
func (s *Sale) Registered(ctx context.Context, host int64) (products []Product, err error) {
	rows, err := s.env.DB.QueryContext(ctx, "SELECT "+productColumns+" FROM products p WHERE p.host = ? ORDER BY p.sku", host)
	if err != nil {
		return nil, fmt.Errorf("products of host %d: %w", host, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	products = []Product{}
	for rows.Next() {
		var p Product
		if err := rows.Scan(p.columns()...); err != nil {
			return nil, err
		}
		products = append(products, p)
	}
	return products, rows.Err()
}
