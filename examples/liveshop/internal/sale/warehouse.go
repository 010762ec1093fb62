package sale

import (
	"context"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// A table is a Warehouse that stands for another company's: its stock changes without
// a word to the shop.
type table struct{ env *infra.Env }

// Left makes table a Warehouse.
func (w table) Left(ctx context.Context, skus []string) (map[string]int64, error) {
	left := map[string]int64{}
	for _, sku := range skus {
		units, err := column[int64](w.env.DB.QueryContext(ctx, "SELECT units FROM warehouse WHERE sku = ?", sku))
		if err != nil {
			return nil, err
		}
		for _, n := range units {
			left[sku] = n
		}
	}
	return left, nil
}

func (w table) set(ctx context.Context, sku string, units int64) error {
	if !skuForm.MatchString(sku) || units < 0 || units > maxUnits {
		return api.Bad("units: %d of %q, want 0 to 2^40", units, sku)
	}
	if _, err := w.env.DB.ExecContext(ctx, w.env.InsertNew("warehouse", "sku", "units"), sku, 0); err != nil {
		return err
	}
	_, err := w.env.DB.ExecContext(ctx, "UPDATE warehouse SET units = ? WHERE sku = ?", units, sku)
	return err
}
