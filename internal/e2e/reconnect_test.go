package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
)

// The server behind a page is killed and another is not to be had for a while. The page
// says so, and misses nothing: what was said meanwhile comes when it is back.
func TestPageResumes(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	other := open(t, browser, s.url(d))
	other.click(".tools .primary")
	other.login()
	other.wait("the connection", live)
	other.say("before")
	p.wait("the barrage before", said("before"))

	offline(p, true)
	operator := &customer{t: t, base: d.base}
	for _, server := range []string{"s1", "s2", "s3"} {
		operator.call("POST /admin/demo/kill", map[string]string{"server": server}, nil)
		cut := p.soon(reconnecting, 3*time.Second)
		operator.call("POST /admin/demo/restart", struct{}{}, nil)
		if cut {
			break
		}
	}
	p.wait("the page to say that it is reconnecting", reconnecting)
	asked := eval[int](p, requests(fmt.Sprintf("/rooms/%d", s.ID)))

	other.wait("a connection of the other", live)
	other.say("while you were away")
	other.wait("its own barrage", said("while you were away"))
	d.login(t).buy(s, 2)
	d.login(t).buy(s, 1)

	offline(p, false)
	p.wait("the connection", live)
	p.wait("what was said meanwhile", said("while you were away"))
	p.wait("what was sold out meanwhile", fmt.Sprintf(`document.querySelector('[data-sku=%q].out')`, s.sku))
	if now := eval[int](p, requests(fmt.Sprintf("/rooms/%d", s.ID))); now != asked {
		t.Errorf("the page loaded the room anew, %d times: it did not resume", now-asked)
	}
	if n := eval[int](p, `[...document.querySelectorAll(".chat-list li")].filter((line) => line.textContent.includes("before")).length`); n != 1 {
		t.Errorf("what came before the cut is there %d times", n)
	}
}

const reconnecting = `document.querySelector(".connection")?.dataset.state === "reconnecting" && document.querySelector(".connection").textContent.includes("Reconnecting")`

func offline(p *tab, off bool) {
	p.t.Helper()
	command(p, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{
		{URLPattern: "*://*:*/api/v1/rooms/*", Block: off},
	}})
}

func (p *tab) say(text string) {
	p.t.Helper()
	p.write(".say input", text)
	p.click(".say .primary")
}

// buy orders units, without paying.
func (c *customer) buy(s stage, qty int) {
	c.t.Helper()
	var order struct {
		ID int64 `json:"order_id"`
	}
	c.call("POST /orders/token", struct{}{}, &order)
	c.call("POST /orders", map[string]any{"order_id": order.ID, "room": s.ID, "items": []map[string]any{{"sku": s.sku, "qty": qty}}}, nil)
}
