package e2e

import (
	"fmt"
	"testing"
)

const (
	toPay  = `document.querySelector(".order .pay")?.textContent`
	coupon = `document.querySelector(".order .coupon:not([hidden])")`
)

// A new visitor has a coupon: ticked, the order costs less, and so much is charged. While
// coupons rest the line goes, and the order may be paid in full.
func TestCoupon(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 5)
	for _, resting := range []bool{false, true} {
		p := open(t, browser, s.url(d))
		p.click(".tools .primary")
		p.login()
		p.click(".tools .wallet")
		p.click("dialog .package:nth-child(2)")
		p.wait("the recharged balance", `document.querySelector(".tools .wallet .figure").textContent === "¥30"`)
		p.click("dialog .sheet-head button")
		p.click(fmt.Sprintf(`[data-sku=%q] .buy`, s.sku))
		p.wait("the coupon", coupon+`?.textContent.includes("¥2 off")`)
		p.wait("the full price, since nothing is ticked", toPay+` === "Pay ¥9.90"`)
		p.click(".order .coupon input")
		p.wait("the smaller price", toPay+` === "Pay ¥7.90"`)
		left := "¥22.10"
		if resting {
			// Servers hear of a switch one after the other: the test answers for them.
			eval[string](p, `(() => {
				const real = window.fetch;
				window.fetch = (url, options) => !options?.body?.includes('"coupon"') ? real(url, options) : Promise.resolve(
					new Response(JSON.stringify({ code: "coupons_off", msg: "" }), { status: 503, headers: { "Retry-After": "30" } }));
				return "";
			})()`)
			p.click(".order .pay")
			p.wait("what is said of it", `document.querySelector(".toast.bad")?.textContent.includes("Coupons rest")`)
			p.wait("the line to go", "!"+coupon)
			p.wait("the full price again", toPay+` === "Pay ¥9.90"`)
			left = "¥20.10"
		}
		p.click(".order .pay")
		p.wait("the paid order", paid)
		p.wait("what is left of the balance", fmt.Sprintf(`document.querySelector(".tools .wallet .figure").textContent === %q`, left))
		p.orders(fmt.Sprintf(`document.querySelector("dialog .order-line .figure")?.textContent === %q`, map[bool]string{false: "¥7.90", true: "¥9.90"}[resting]))
	}
}
