package e2e

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A visitor becomes a host: opens a room, is granted rain, sells something, lets it rain,
// and closes the room; another tab sees all of it.
func TestHostOpensARoom(t *testing.T) {
	d, browser := start(t)
	host := open(t, browser, d.base+"/")
	host.click(".own-room")
	host.enter()
	host.wait("what the room is to be", `document.querySelector("#own-title")`)
	host.write("#own-title", "Tea with me")
	host.click("dialog .primary")
	host.wait("the room, with the row of its host", `document.querySelector(".desk:not([hidden])") && document.querySelector(".gifts").hidden`)
	host.wait("the connection", live)

	host.click(".desk-tool.packet")
	uid := host.number("dialog .lead")
	host.click("dialog .sheet-head button")
	host.click(".operator-button")
	host.click("#operator .op-hosts .op:nth-child(1)")
	host.wait("the host of the room", fmt.Sprintf(`document.querySelector("#host-uid").value === "%d"`, uid))
	host.click("dialog .primary")
	host.wait("the grant", `!document.querySelector("dialog")`)
	host.click("#operator .op-hosts .op:nth-child(2)")
	host.write("#ware-title", "First harvest")
	host.wait("the host of the room", fmt.Sprintf(`document.querySelector("#host-uid").value === "%d"`, uid))
	host.click("dialog .primary")
	host.wait("the product", `!document.querySelector("dialog")`)
	host.click("#operator .panel-head button")

	guest := open(t, browser, d.base+"/"+eval[string](host, `location.hash`))
	guest.click(".tools .primary")
	guest.login()
	guest.wait("the connection", live)
	host.click(".desk-tool.box")
	host.click("dialog [data-registered] button")
	host.wait("it on the shelf", `document.querySelector("dialog [data-registered] .badge")`)
	host.click("dialog .sheet-head button")
	guest.wait("the product, by itself", `document.querySelector(".ware-row .stock")?.textContent === "50 left" && document.querySelector(".ware-row .buy:enabled")`)
	host.wait("no button to buy in the own room", `document.querySelector(".ware-row") && !document.querySelector(".ware-row .buy").checkVisibility()`)

	host.click(".desk-tool.packet")
	host.wait("the form", `document.querySelector("#rain-total")`)
	host.click("dialog .primary")
	host.wait("a word that there is too little money", `document.querySelector("dialog .problem").textContent.includes("balance is too low")`)
	host.click("dialog form .quiet")
	host.click("dialog .package:nth-child(3)")
	host.wait("the money", balance("¥98"))
	host.press(kb.Escape)
	host.click("dialog .primary")
	host.wait("the price to be paid", balance("¥48"))
	host.do(chromedp.Reload())
	host.click(".desk-tool.packet")
	host.wait("the rain that is paid for, after a reload, too", `!document.querySelector("#rain-total") && document.querySelector("dialog form .lead")?.textContent.includes("¥50 in 20 packets")`)
	host.click("dialog .primary")
	guest.wait("packets", `document.querySelector(".grab:enabled")?.textContent === "Catch a packet"`)
	guest.click(".grab")
	guest.wait("one of them", `document.querySelector(".grab").textContent.includes("You caught ¥")`)
	guest.wait("its money", `!document.querySelector(".tools .wallet .figure").textContent.endsWith("¥0")`)
	host.wait("who caught it", said("caught ¥"))

	guest.click(".follow")
	guest.wait("the host to be followed", `document.querySelector(".follow").getAttribute("aria-pressed") === "true"`)
	host.click(".desk-tool.pen")
	host.write("#post-text", "Tonight at eight.")
	host.click("dialog .primary")
	host.wait("the post to be gone", `!document.querySelector("dialog")`)
	// What a dialog shows is asked for once: it is opened anew until the post has arrived.
	guest.wait("the post among the messages", `(() => {
		const dialog = document.querySelector("dialog")
		if (!dialog) {
			window.openedAt = Date.now()
			document.querySelector('.tools [aria-label^="Messages"]').click()
			return false
		}
		if (dialog.querySelector(".posts")?.textContent.includes("Tonight at eight.")) return true
		if (Date.now() - window.openedAt > 1000) dialog.close()
		return false
	})()`)
	guest.press(kb.Escape)

	host.click(".desk-tool.share")
	host.wait("the link", `document.querySelector("dialog input[readonly]")?.value.includes("/s/")`)
	host.click("dialog .sheet-head button")
	host.click(".desk-tool.stop")
	host.click("dialog .primary")
	const closed = `document.querySelector(".connection")?.dataset.state === "closed" && document.querySelector(".ware-row .stock").textContent === "Sale over"`
	host.wait("the end", closed)
	guest.wait("the end", closed)
	host.wait("a way to another room", `document.querySelector(".desk .primary").checkVisibility() && !document.querySelector(".desk-tool.packet").checkVisibility()`)
}

// How much is left moves without a question from any page; a product that comes later
// costs each page one.
func TestLeftMovesByItself(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 9)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	shelf := fmt.Sprintf("/rooms/%d/products", s.ID)
	asked := eval[int](p, requests(shelf))
	left := func(n int) string {
		return fmt.Sprintf(`document.querySelector('[data-sku=%q] .stock').textContent === "%d left"`, s.sku, n)
	}
	for _, n := range []int{7, 5, 4} {
		d.login(t).buy(s, map[int]int{7: 2, 5: 2, 4: 1}[n])
		p.wait(strconv.Itoa(n)+" left", left(n))
	}
	if now := eval[int](p, requests(shelf)); now != asked {
		t.Errorf("the page asked %d times how much is left", now-asked)
	}

	s.host.call("POST /admin/products", map[string]any{"sku": s.sku + "-2", "host": s.host.UID, "title": "Another", "fen": 100, "total": 6, "per_user": 2}, nil)
	s.host.call(fmt.Sprintf("POST /rooms/%d/products", s.ID), map[string]string{"sku": s.sku + "-2"}, nil)
	p.wait("the new product", `document.querySelector(".ware-row:nth-child(2) .stock")?.textContent === "6 left"`)
	if now := eval[int](p, requests(shelf)); now != asked+1 {
		t.Errorf("the page looked at the shelf %d times for one product", now-asked)
	}

	// Without a socket it asks.
	command(p, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{
		{URLPattern: fmt.Sprintf("*://*:*/api/v1/rooms/%d/im", s.ID), Block: true},
	}})
	eval[string](p, `(sessionStorage.clear(), "")`)
	p.do(chromedp.Reload())
	p.wait("a guest's page", `document.querySelector(".connection")?.dataset.state === "guest" && document.querySelector(".ware-row")`)
	d.login(t).buy(s, 2)
	p.wait("2 left, for a guest", left(2))
	if now := eval[int](p, requests(shelf)); now == 0 {
		t.Error("a guest has no socket, and did not ask: how does the page know?")
	}
}

// Who challenges is called by name on pages that never heard of them.
func TestChallengerHasAName(t *testing.T) {
	d, browser := start(t)
	s := d.stageOf(t, "pk", 1)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	challenger := d.login(t)
	challenger.call(fmt.Sprintf("POST /rooms/%d/pk/join", s.ID), struct{}{}, nil)
	name := fmt.Sprintf(`document.querySelector(".duel-name:last-child").textContent === %q`, challenger.Name)
	p.wait("the challenger's name", name)
	p.wait("the challenger among whom gifts are for", fmt.Sprintf(`document.querySelector(".gift-to option:last-child").textContent === %q`, challenger.Name))
	p.do(chromedp.Reload())
	p.wait("the challenger's name, after a reload", `document.querySelector(".duel-bar")?.checkVisibility() && `+name)
}

// The host's row and its dialogs are reached and left by keyboard, and fit on a phone.
func TestDeskIsForEverybody(t *testing.T) {
	d, browser := start(t)
	p := open(t, browser, d.base+"/")
	p.do(chromedp.EmulateViewport(phone, 740, chromedp.EmulateMobile, chromedp.EmulateTouch))
	p.tabTo(".own-room")
	p.press(kb.Enter)
	p.enter()
	p.wait("what the room is to be", `document.activeElement.id === "own-title"`)
	p.press("By keyboard")
	p.tabTo(`dialog input[value="normal"]`)
	p.press(kb.ArrowRight)
	p.wait("the other kind", `document.querySelector('dialog input[value="pk"]').checked`)
	p.nameless("the form of a room")
	p.press(kb.Enter)
	p.wait("the room", `document.querySelector(".desk:not([hidden])")`)
	uid := eval[int](p, `JSON.parse(sessionStorage.getItem("liveshop:session")).uid`)
	d.login(t).call("POST /admin/products", map[string]any{"sku": fmt.Sprintf("long-%d", uid), "host": uid, "title": "Noise-cancelling headphones with a very long name", "fen": 123456, "total": 1_000_000}, nil)
	p.fits("the room of a host")
	p.nameless("the room of a host")
	for _, tool := range []string{"packet", "box", "pen", "share", "stop"} {
		p.tabTo(".desk-tool." + tool)
		p.press(kb.Enter)
		p.wait("the dialog of "+tool, `document.querySelector("dialog") && !document.querySelector("dialog [role=status]")`)
		p.fits(tool)
		if eval[bool](p, `[...document.querySelectorAll("dialog, dialog .line")].some((node) => node.scrollWidth > node.clientWidth)`) {
			t.Errorf("%s: something is cut off", tool)
		}
		for _, role := range p.withoutName(2) {
			t.Errorf("%s: a %s has no name", tool, role)
		}
		for _, finding := range eval[[]string](p, contrast) {
			t.Error(tool, finding)
		}
		p.press(kb.Escape)
		p.wait("the focus to be back", fmt.Sprintf(`!document.querySelector("dialog") && document.activeElement.matches(".desk-tool.%s")`, tool))
	}
	p.click(".tools .language")
	p.fits("the room of a host, in Chinese")
	if running := eval[int](p, `document.getAnimations().filter((a) => a.playState === "running").length`); running > 0 {
		t.Errorf("%d animations run, against the visitor's wish", running)
	}
}

// enter fills the login in that is open; what it was asked for goes on.
func (p *tab) enter() {
	p.t.Helper()
	p.write("#phone", newPhone())
	p.press(kb.Enter)
	p.wait("the field for the code", `document.activeElement.id === "code"`)
	p.press("1000" + kb.Enter)
	p.wait("the login to be over", `!document.querySelector("#phone")`)
}

// number is the last one in a text.
func (p *tab) number(css string) int {
	p.t.Helper()
	p.wait("a number in "+css, fmt.Sprintf(`/\d/.test(document.querySelector(%q)?.textContent)`, css))
	return eval[int](p, fmt.Sprintf(`Number(document.querySelector(%q).textContent.match(/\d+(?=\D*$)/)[0])`, css))
}

func balance(sum string) string {
	return fmt.Sprintf(`document.querySelector(".tools .wallet .figure").textContent === %q`, sum)
}
