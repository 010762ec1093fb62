package check

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// couponsSpentOnce: a coupon that is used is so for an order of its user that is paid
// for, and whose price it was good for, before it expired. That each order was charged
// its price less its coupon, see paidIsSold.
func couponsSpentOnce(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	money, err := moneyOfOrders(ctx, env)
	if err != nil {
		return nil, "", err
	}
	used := 0
	err = query(ctx, env, func(scan func(...any) error) error {
		var coupon string
		var order, uid, off, least, expires, at int64
		var payer, fen sql.NullInt64
		if err := scan(&coupon, &order, &uid, &off, &least, &expires, &at, &payer, &fen); err != nil {
			return err
		}
		used++
		bad := func(format string, args ...any) {
			wrong = append(wrong, fmt.Sprintf("coupon %s, used for order %d, ", coupon, order)+fmt.Sprintf(format, args...))
		}
		switch m := money[strconv.FormatInt(order, 10)]; {
		case m == nil || m.charges == 0:
			bad("which nobody was charged for")
		case m.refunds > 0:
			bad("whose payment went back")
		case payer.Int64 != uid:
			bad("is user %d's, and the order user %d's", uid, payer.Int64)
		case fen.Int64+off < least:
			bad("is for %d fen or more, and not %d", least, fen.Int64+off)
		case at >= expires:
			bad("had expired %d ms before", at-expires)
		}
		return nil
	}, `SELECT c.coupon, c.order_id, c.uid, c.off_fen, c.min_fen, c.expires_ms, c.used_ms, p.uid, p.fen
		FROM coupons c LEFT JOIN payments p ON p.order_id = c.order_id WHERE c.order_id IS NOT NULL`)
	if err != nil {
		return nil, "", err
	}
	all, err := number(ctx, env, "SELECT COUNT(*) FROM coupons")
	return wrong, fmt.Sprintf("%d of %d coupons are used", used, all), err
}
