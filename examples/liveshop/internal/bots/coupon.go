package bots

import (
	"context"
	"fmt"

	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
)

// coupon returns one that a customer has; empty if there is none, or they rest.
func coupon(ctx context.Context, me *client.Client) string {
	var out struct{ Coupons []struct{ Coupon string } }
	if me.Call(ctx, "GET /coupons", nil, &out) != nil || len(out.Coupons) == 0 {
		return ""
	}
	return out.Coupons[0].Coupon
}

// payOrder pays for an order, the first time with a coupon if there is one and the
// customer saves. What did not work is asked again without: if only the answer was lost,
// it is that of the first time.
func payOrder(ctx context.Context, me *client.Client, order int64, saves bool, out any) error {
	pay := fmt.Sprintf("POST /orders/%d/pay", order)
	if saves {
		if c := coupon(ctx, me); c != "" && me.Call(ctx, pay, map[string]string{"coupon": c}, out) == nil {
			return nil
		}
	}
	return me.Sure(ctx, pay, nil, out)
}
