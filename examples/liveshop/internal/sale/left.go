package sale

import (
	"context"
	"errors"
	"net/http"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// A LeftFrame is what is left of everything that a room sells: the figures between two
// frames of stock, which tell of the first and the last unit and may not be missed. These
// may: the next one has all of them again.
type LeftFrame struct {
	Items []LeftItem `json:"items"`
}

// A LeftItem is a product in a LeftFrame. Of two with different versions the higher one
// counts; with the same, the later.
type LeftItem struct {
	SKU     string `json:"sku"`
	Left    int64  `json:"left"`
	Version int64  `json:"version"`
	Total   int64  `json:"total"`
	Edited  int64  `json:"edited"` // version of the product: another one, and the page looks at the shelf again
	Paused  bool   `json:"paused,omitempty"`
}

// Left is the LeftFrame of a room; nil if it sells nothing. It is made of what this
// server knows anyway: at most four questions a second to Redis for a room, whoever asks.
func (s *Sale) Left(ctx context.Context, room int64) (any, error) {
	offers, err := s.Offers(ctx, room)
	if none := new(api.Error); errors.As(err, &none) && none.Status == http.StatusNotFound || err == nil && len(offers) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := LeftFrame{Items: make([]LeftItem, len(offers))}
	for i, o := range offers {
		f.Items[i] = LeftItem{SKU: o.SKU, Left: o.Left, Version: o.Version, Total: o.Total, Edited: o.Edited, Paused: o.Paused}
	}
	return f, nil
}
