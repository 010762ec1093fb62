package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// The list of rooms while it loads, when there is none, and when it cannot be had.
func TestListStates(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 1)
	p := open(t, browser, d.base+"/")
	card := fmt.Sprintf(`document.querySelector('[data-room="%d"]')`, s.ID)
	p.wait("the room", card)

	// From here on the test answers for the list.
	eval[string](p, `(() => {
		const real = window.fetch;
		window.answers = [];
		window.fetch = (url, options) => String(url).includes("/rooms?") && window.answers ? new Promise((resolve) => window.answers.push(resolve)) : real(url, options);
		return "";
	})()`)
	answer := func(status int, body string) {
		t.Helper()
		p.wait("a request for the list", `window.answers.length > 0`)
		eval[string](p, fmt.Sprintf(`(window.answers.shift()(new Response(%q, { status: %d })), "")`, body, status))
	}
	again := func() {
		eval[string](p, `(window.answers.length = 0, document.querySelector('.chip[aria-pressed="true"]').click(), "")`)
	}
	again()
	p.wait("cards that are loading", `document.querySelector(".cards").getAttribute("aria-busy") === "true" && document.querySelectorAll(".card.skeleton").length > 2`)
	answer(200, `{"code":"ok","data":{"rooms":[]}}`)
	p.wait("a word that there is no room", `document.querySelector(".notice")?.textContent.includes("Nobody is live")`)
	again()
	answer(500, `{"code":"internal","msg":"it did not work","trace":"0123456789abcdef"}`)
	p.wait("the error, with its trace", `document.querySelector(".notice.bad")?.textContent.includes("0123456789abcdef")`)
	eval[string](p, `(window.answers = null, "")`)
	p.click(".notice .primary")
	p.wait("the room, after trying again", card)
}

// Likes, gifts, the short link and the red dot, as the other visitor sees them.
func TestVisitorsEnjoyThemselves(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 1)
	one := open(t, browser, s.url(d))
	one.click(".tools .primary")
	one.login()
	one.wait("the connection", live)

	one.click(`.say [aria-label="Share"]`)
	one.wait("a link", `document.querySelector("dialog input[readonly]")?.value.includes("/s/")`)
	link := eval[string](one, `document.querySelector("dialog input[readonly]").value`)
	if !strings.HasPrefix(link, d.base+"/s/") {
		t.Errorf("the link is %s", link)
	}
	one.click("dialog .sheet-head button")
	two := open(t, browser, link)
	two.wait("the room that the link leads to", fmt.Sprintf(`location.hash === "#/rooms/%d" && document.querySelector(".ware-row")`, s.ID))
	two.click(".tools .primary")
	two.login()
	two.wait("the connection", live)
	two.click(".follow")
	two.wait("the host to be followed", `document.querySelector(".follow").getAttribute("aria-pressed") === "true"`)
	two.do(chromedp.Reload())
	two.wait("the host to be followed after a reload, too", `document.querySelector(".follow")?.getAttribute("aria-pressed") === "true"`)
	two.wait("the connection", live)

	for range 3 {
		one.click(".say .like")
	}
	two.wait("three likes", `document.querySelector(".figure-pair.likes .figure").textContent === "3"`)

	one.click(".gift:nth-child(1)") // without a fen: the wallet opens
	one.click("dialog .package:nth-child(1)")
	one.wait("the recharge", `document.querySelector(".tools .wallet .figure").textContent === "¥6"`)
	one.click("dialog .sheet-head button")
	one.click(".gift:nth-child(1)")
	two.wait("the gift", said("sent Rose ×1"))
	one.wait("the price to be paid", `document.querySelector(".tools .wallet .figure").textContent === "¥5"`)

	two.click(".stage-top a")
	two.wait("the list of rooms", `document.querySelector(".lobby")`)
	// What is unread counts from the visitor's last look into the room, and on a busy machine
	// a room comes without what takes too long: then they look in again.
	for n := 1; ; n++ {
		if n > 1 {
			two.do(chromedp.Navigate(s.url(d)))
			two.wait("the connection", live)
			two.click(".stage-top a")
			two.wait("the list of rooms", `document.querySelector(".lobby")`)
		}
		text := fmt.Sprintf("are you still there? %d", n)
		one.say(text)
		one.wait("its own barrage", said(text))
		if two.soon(`Number(document.querySelector(".tools .dot:not([hidden])")?.textContent) > 0`, 20*time.Second) {
			break
		}
		if n == 5 {
			t.Fatalf("no red dot, after five messages; hidden: %v, location: %s, news: %s", eval[bool](two, "document.hidden"), eval[string](two, "location.href"),
				eval[string](two, `fetch("/api/v1/unread", {headers: {Authorization: "Bearer " + JSON.parse(sessionStorage.getItem("liveshop:session")).token}}).then((r) => r.text())`))
		}
	}
	two.click(`.tools [aria-label^="Messages"]`)
	two.wait("the room in which there is something new", fmt.Sprintf(`document.querySelector('dialog a[href="#/rooms/%d"]')?.textContent.startsWith("Stage")`, s.ID))
}
