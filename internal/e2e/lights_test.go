package e2e

import (
	"fmt"
	"testing"
)

// What could not be looked at is not counted as broken, and does not hide what is. No look
// begins before the last one has ended, however long it takes.
func TestLightsThatAreUnknown(t *testing.T) {
	d, browser := start(t)
	p := open(t, browser, d.base)
	p.wait("what holds", verdict("ok", ""))
	const money = `{ name: "money adds up", ok: false, unknown: true, detail: "could not be looked at" }`
	for _, c := range []struct{ other, verdict, text string }{
		{`ok: true`, "away", "1 could not be checked"},
		{`ok: false`, "bad", "1 broken"},
	} {
		answer := fmt.Sprintf(`{ code: "ok", data: [%s, { name: "stock adds up", %s, detail: "" }] }`, money, c.other)
		eval[bool](p, fmt.Sprintf(`{
			const real = window.real ??= window.fetch;
			Object.assign(window, { asking: 0, most: 0, asked: 0 });
			window.fetch = async (url, init) => {
				if (!url.endsWith("/admin/invariants")) return real(url, init);
				window.most = Math.max(window.most, ++window.asking);
				await new Promise((resolve) => setTimeout(resolve, 4_000));
				window.asking--;
				window.asked++;
				return Response.json(%s);
			};
			true;
		}`, answer))
		p.wait("the verdict of what is unknown", verdict(c.verdict, c.text))
		p.wait("a lamp that is neither", `[...document.querySelectorAll(".light")].some((l) => l.dataset.ok === "" && l.innerText.includes("Money adds up"))`)
		p.wait("another look", `window.asked >= 2`)
		if n := eval[int](p, `window.most`); n > 1 {
			t.Errorf("%d looks at once", n)
		}
	}
}

// verdict is an expression: what the lights say all together.
func verdict(state, text string) string {
	return fmt.Sprintf(`document.querySelector(".lights").dataset.verdict === %q && document.querySelector(".verdict").textContent.includes(%q)`, state, text)
}
