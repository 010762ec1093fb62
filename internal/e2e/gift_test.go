package e2e

import "testing"

// A gift got no answer, however often the page asked, and may have been paid for: the
// visitor who clicks again gives the same one. The click after that is another gift.
func TestAGiftWithoutAnAnswer(t *testing.T) {
	d, browser := start(t)
	s := d.stage(t, 3)
	p := open(t, browser, s.url(d))
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	eval[bool](p, `{
		const real = window.fetch;
		Object.assign(window, { lost: 0, keys: [] });
		window.fetch = async (url, init) => {
			if (!url.endsWith("/gifts") || init.method !== "POST") return real(url, init);
			window.keys.push(JSON.parse(init.body).key);
			if (window.lost === 4) return Response.json({ code: "ok", data: { balance: 900 } });
			window.lost++;
			return Response.json({ code: "unknown" }, { status: 503 });
		};
		true;
	}`)
	p.click(".gift:nth-child(1)")
	p.wait("all attempts", `window.lost === 4 && document.querySelector(".toast.bad")`)
	for range 2 {
		p.wait("the button", `!document.querySelector(".gift:nth-child(1)").disabled`)
		p.click(".gift:nth-child(1)")
	}
	p.wait("three clicks", `window.keys.length === 6`)
	if keys := eval[[]string](p, `window.keys`); keys[0] != keys[3] || keys[0] != keys[4] || keys[4] == keys[5] {
		t.Errorf("keys of four attempts, the click after them, and the next gift: %v", keys)
	}
}
