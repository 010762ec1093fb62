package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Everything that can be used has a name that a screen reader says, in both languages.
func TestEverythingHasAName(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.nameless("the login")
	p.login()
	p.wait("the connection", live)
	p.click(fmt.Sprintf(`[data-sku=%q] .buy`, s.sku))
	p.wait("a reserved order", pending)
	p.click(".operator-button")
	p.wait("the servers in the control room", `document.querySelectorAll("#operator .server").length === 3`)
	p.nameless("the room")
	p.click(".tools .language")
	p.wait("Chinese", `document.querySelector("#shelf-title").textContent === "货架"`)
	p.nameless("the room in Chinese")
	eval[bool](p, `document.querySelector("main").append(document.createElement("button")) ?? true`)
	if len(p.withoutName(4)) != 1 {
		t.Error("a button without a name is not found: this test cannot fail")
	}
	p.do(chromedp.Reload())
	p.wait("Chinese, remembered", `document.documentElement.lang === "zh" && document.querySelector("#shelf-title")?.textContent === "货架"`)
}

func (p *tab) nameless(where string) {
	p.t.Helper()
	for _, role := range p.withoutName(4) {
		p.t.Errorf("%s: a %s has no name", where, role)
	}
}

// withoutName returns the roles of what can be used and has no name, of at least so many
// things.
func (p *tab) withoutName(least int) (bad []string) {
	p.t.Helper()
	roles := []string{"button", "link", "textbox", "combobox", "switch", "checkbox", "log", "dialog", "timer"}
	tree := command(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	found := 0
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil || !slices.Contains(roles, text(node.Role)) {
			continue
		}
		found++
		if text(node.Name) == "" {
			bad = append(bad, text(node.Role))
		}
	}
	if found < least {
		p.t.Errorf("only %d things to use: is the page there?", found)
	}
	return bad
}

// text is the string that a value of the accessibility tree is.
func text(v *accessibility.Value) (s string) {
	if v != nil {
		_ = json.Unmarshal(v.Value, &s) // no string is no text
	}
	return s
}

// Texts can be told from what is behind them: at least 4.5:1, as WCAG AA asks.
func TestContrast(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.login()
	p.click(fmt.Sprintf(`[data-sku=%q] .buy`, s.sku))
	p.wait("a reserved order", pending)
	p.click(".operator-button")
	p.wait("the servers in the control room", `document.querySelectorAll("#operator .server").length === 3`)
	for _, finding := range eval[[]string](p, contrast) {
		t.Error(finding)
	}
	eval[string](p, `document.querySelector("#shelf-title").style.color = "#555"`)
	if found := eval[[]string](p, contrast); len(found) != 1 {
		t.Errorf("grey on black is to be found, and nothing else: %q", found)
	}
}

// contrast compares the colour of each text with the next background behind it that is
// a plain colour. Texts on the stage and on gradients it leaves out.
const contrast = `(() => {
	const parse = (s) => (s.match(/[\d.]+/g) ?? []).map(Number);
	const channel = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
	const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
	const bad = [];
	let seen = 0;
	for (const node of document.querySelectorAll("body *")) {
		const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
		if (!own || !node.checkVisibility() || node.closest(".stage, .sr, button:disabled, .skip")) continue;
		let behind = node, colour;
		for (; behind; behind = behind.parentElement) {
			const style = getComputedStyle(behind);
			if (style.backgroundImage !== "none") break;
			const [r, g, b, a = 1] = parse(style.backgroundColor);
			if (a > 0.9) { colour = [r, g, b]; break; }
		}
		if (!colour) continue;
		seen++;
		const [x, y] = [light(parse(getComputedStyle(node).color)), light(colour)].sort((a, b) => b - a);
		const ratio = (x + 0.05) / (y + 0.05);
		if (ratio < 4.5) bad.push(node.className + " " + JSON.stringify(node.textContent) + ": " + ratio.toFixed(2) + ":1");
	}
	if (seen < 10) bad.push("only " + seen + " texts compared: is the page there?");
	return bad;
})()`

// The keyboard alone gets one from the list of rooms to a reserved order.
func TestKeyboardAlone(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, d.base+"/")
	p.wait("the card of the room", fmt.Sprintf(`document.querySelector('[data-room="%d"] a')`, s.ID))
	p.tabTo(fmt.Sprintf(`[data-room="%d"] a`, s.ID))
	p.press(kb.Enter)
	p.wait("the shelf", fmt.Sprintf(`document.querySelector('[data-sku=%q] .buy:enabled')`, s.sku))
	p.tabTo(fmt.Sprintf(`[data-sku=%q] .buy`, s.sku))
	p.press(kb.Enter)
	p.tabTo("#phone")
	p.press(newPhone() + kb.Enter)
	p.wait("the field for the code", `document.activeElement.id === "code"`)
	p.press("1000" + kb.Enter)
	p.wait("a reserved order", pending)
	p.tabTo(".order .pay")
	p.press(kb.Enter)
	p.wait("the wallet, since there is no money", `document.querySelector("dialog .package")`)
	p.press(kb.Escape)
	p.wait("the wallet to go", `!document.querySelector("dialog")`)
}

// tabTo presses Tab until what is looked for has the focus, and shows it.
func (p *tab) tabTo(css string) {
	p.t.Helper()
	for range 80 {
		if eval[bool](p, fmt.Sprintf(`document.activeElement?.matches(%q) ?? false`, css)) {
			if outline := eval[string](p, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
				p.t.Errorf("%s has the focus and does not show it", css)
			}
			return
		}
		p.press(kb.Tab)
	}
	p.t.Fatalf("80 times Tab did not lead to %s", css)
}

func (p *tab) press(keys string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// On a phone nothing sticks out, in any language.
func TestPhoneWidth(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, d.base+"/")
	p.do(chromedp.EmulateViewport(phone, 740, chromedp.EmulateMobile, chromedp.EmulateTouch))
	p.fits("the list of rooms")
	p.do(chromedp.Navigate(s.url(d)))
	p.wait("the shelf", `document.querySelector(".ware-row")`)
	p.fits("the room")
	p.click(".tools .language")
	p.fits("the room in the other language")
	p.click(".operator-button")
	p.wait("the servers in the control room", `document.querySelectorAll("#operator .server").length === 3`)
	p.fits("the control room")
	eval[string](p, `document.querySelector("main").append(document.createElement("hr")) ?? (document.querySelector("hr").style.width = "400px")`)
	if p.width() <= phone {
		t.Error("what sticks out is not found: this test cannot fail")
	}
}

const phone = 360 // px

func (p *tab) fits(what string) {
	p.t.Helper()
	p.wait("something on the page", `document.querySelector("main h1")`)
	if wide := p.width(); wide > phone {
		p.t.Errorf("%s is %d px wide on a phone of %d", what, wide, phone)
	}
}

func (p *tab) width() int {
	p.t.Helper()
	return eval[int](p, `document.scrollingElement.scrollWidth`)
}

// With reduced motion nothing flies or turns; what is said can be read all the same.
func TestReducedMotion(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, d.base+"/")
	p.motion("no-preference")
	if !eval[bool](p, stageMoves(s)) {
		t.Error("without the setting, too, the stage stands still: this test cannot fail")
	}
	p.motion("reduce")
	if eval[bool](p, stageMoves(s)) {
		t.Error("the stage moves")
	}
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	p.say("standing still")
	p.wait("the comment in the chat", said("standing still"))
	if running := eval[int](p, `document.getAnimations().filter((a) => a.playState === "running").length`); running > 0 {
		t.Errorf("%d animations run", running)
	}
}

// stageMoves opens a room and watches its stage until it has changed twenty times, or
// stands still for two seconds. What is there at first may be painted in several steps.
func stageMoves(s stage) string {
	return fmt.Sprintf(`(async () => {
		const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
		location.hash = "#/";
		await pause(200);
		location.hash = "#/rooms/%d";
		let canvas;
		while (!(canvas?.width > 300) || canvas.toDataURL().length < 10_000) {
			await pause(100);
			canvas = document.querySelector(".stage canvas");
		}
		let before = canvas.toDataURL();
		for (let changed = 0, still = 0; changed < 20;) {
			await pause(250);
			const now = canvas.toDataURL();
			now === before ? still++ : (changed++, still = 0);
			if (still === 8) return false;
			before = now;
		}
		return true;
	})()`, s.ID)
}
