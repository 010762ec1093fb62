package e2e

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/network"
)

const (
	pending = `document.querySelector(".order:not([hidden])")?.dataset.state === "pending"`
	paid    = `document.querySelector(".order:not([hidden])")?.dataset.state === "paid"`
	live    = `document.querySelector(".connection")?.dataset.state === "live"`
)

func said(text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".chat-list li")].some((line) => line.textContent.includes(%q))`, text)
}

// From the list of rooms to a paid order, with what a visitor sees on the way.
func TestVisitorBuys(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 5)
	p := open(t, browser, d.base+"/")
	p.wait("the card of the room", fmt.Sprintf(`document.querySelector('[data-room="%d"] a')`, s.ID))
	p.click(fmt.Sprintf(`[data-room="%d"] a`, s.ID))

	buy := fmt.Sprintf(`[data-sku=%q] .buy`, s.sku)
	p.wait("the shelf", fmt.Sprintf(`document.querySelector('[data-sku=%q] .stock')?.textContent === "5 left"`, s.sku))
	p.click(buy) // nobody is logged in: this asks who it is, and goes on
	p.login()
	p.wait("a reserved order", pending)

	left := `document.querySelector(".countdown .figure").textContent`
	first := eval[string](p, left)
	p.wait("the countdown to move on from "+first, left+" !== "+fmt.Sprintf("%q", first))
	if seconds := eval[int](p, left+`.split(":").reduce((all, part) => all * 60 + Number(part), 0)`); seconds <= 0 {
		t.Errorf("the countdown says %d s", seconds)
	}
	p.wait("one unit less on the shelf", fmt.Sprintf(`document.querySelector('[data-sku=%q] .stock').textContent === "4 left"`, s.sku))

	p.click(".order .pay") // the balance is 0: the wallet opens
	p.click("dialog .package:nth-child(2)")
	p.wait("the recharged balance", `document.querySelector(".tools .wallet .figure").textContent === "¥30"`)
	p.click("dialog .sheet-head button")
	p.click(".order .pay")
	p.wait("the paid order", paid)
	p.wait("what is left of the balance", `document.querySelector(".tools .wallet .figure").textContent === "¥20.10"`)

	p.orders(fmt.Sprintf(`document.querySelector("dialog .order-line .badge.paid") && document.querySelector("dialog .order-line").textContent.includes(%q)`, s.title))
}

// orders opens the list of orders until an expression is true of it: it is what SQL has
// when it is opened.
func (p *tab) orders(expression string) {
	p.t.Helper()
	for range 10 {
		p.click(`.tools [aria-label="Orders"]`)
		if p.soon(expression, patience/10) {
			return
		}
		p.click("dialog .sheet-head button")
		p.wait("the list to close", `!document.querySelector("dialog")`)
	}
	p.t.Fatalf("the list of orders is never so: %s", expression)
}

// Who does not pay in time loses the units, and sees them back on the shelf.
func TestUnpaidComesBack(t *testing.T) {
	d, browser := start(t, "-hold", "3s")
	s := d.stage(t, 1)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	p.click(fmt.Sprintf(`[data-sku=%q] .buy`, s.sku))
	p.wait("a reserved order", pending)
	p.wait("the last unit to be gone", fmt.Sprintf(`document.querySelector('[data-sku=%q].out')`, s.sku))
	p.wait("the end of the order", `document.querySelector(".order:not([hidden])")?.dataset.state === "cancelled"`)
	p.wait("the unit to be back", fmt.Sprintf(`document.querySelector('[data-sku=%q]:not(.out) .buy:enabled')`, s.sku))
}

// What one visitor says another sees; what one buys up is sold out for the other.
func TestVisitorsSeeEachOther(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 2)
	one := open(t, browser, s.url(d))
	one.click(".tools .primary")
	one.login()
	one.wait("the connection", live)
	two := open(t, browser, s.url(d))
	two.click(".tools .primary")
	two.login()
	two.wait("the connection", live)

	two.write(".say input", "<b>hello</b> from the other tab")
	two.click(".say .primary")
	one.wait("the barrage, as text", said("<b>hello</b> from the other tab"))

	// The figures are not asked for any more: a flip has to come by itself.
	command(one, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{
		{URLPattern: "*://*:*/api/v1/rooms/*/products", Block: true},
	}})
	asked := eval[int](one, requests(fmt.Sprintf("/rooms/%d", s.ID)))
	d.login(t).buy(s, 2)
	one.wait("sold out", fmt.Sprintf(`document.querySelector('[data-sku=%q].out .buy:disabled')?.textContent === "Gone"`, s.sku))
	one.wait("the line in the chat", said("is sold out"))
	if now := eval[int](one, requests(fmt.Sprintf("/rooms/%d", s.ID))); now != asked {
		t.Errorf("the page fetched the room %d times for the flip", now-asked)
	}

	// A frame that is older than what the page knows changes nothing.
	old := `import("/js/stock.js").then(({ Stock }) => {
		const stock = new Stock();
		const steps = [[5, 10], [0, 11], [5, 10], [3, 11], [1, 12], [0, 11]];
		return steps.map(([left, version]) => { stock.apply({ sku: "a", left, version }); return stock.left("a"); }).join();
	})`
	if got := eval[string](one, old); got != "5,0,0,0,1,1" {
		t.Errorf("after stock frames in the wrong order: %s", got)
	}
}

// requests counts those that the page made to a path of the API.
func requests(path string) string {
	return fmt.Sprintf(`performance.getEntriesByType("resource").filter((r) => r.name.endsWith(%q)).length`, "/api/v1"+path)
}
