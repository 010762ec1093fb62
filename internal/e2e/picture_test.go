package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const (
	picture = "../../examples/liveshop/screenshot.png"
	largest = 400_000 // bytes
)

// The picture of the example's README: a room in which something has just sold out, an
// order to be paid, and the control room beside them.
func TestPicture(t *testing.T) {
	if os.Getenv("E2E_SCREENSHOT") != "1" {
		t.Skip("E2E_SCREENSHOT=1 writes " + picture)
	}
	d, browser := start(t, "-hold", "2m")
	p := open(t, browser, d.base+"/")
	p.do(chromedp.EmulateViewport(1600, 1000))
	p.wait("rooms with customers", `[...document.querySelectorAll(".card .figures")].some((f) => Number(f.textContent.match(/\d+/)) > 1)`)
	p.click(".card a")
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	p.click(".operator-button")
	p.wait("half a minute of figures", figures(30))
	p.click("#operator .op:first-of-type")
	p.wait("the new product", `document.querySelector(".ware-row:nth-child(3)")`)
	room := eval[int](p, `Number(location.hash.match(/\d+/))`)
	(&customer{t: t, base: d.base}).call("POST /admin/demo/bots", map[string]int{"room": room, "n": 500}, nil)
	p.wait("the sell-out", `document.querySelector(".ware-row.out")`)
	p.wait("a minute and a half of figures", figures(90))
	p.click(".ware-row .buy:enabled")
	p.wait("a reserved order", pending)
	p.motion("no-preference")
	lines := eval[int](p, chatLines)
	p.wait("some barrage on the stage", fmt.Sprintf(chatLines+" >= Math.min(80, %d)", lines+8))
	p.wait("a gift that has come in", `[...document.querySelectorAll(".gift-banner")].some((b) => b.getBoundingClientRect().left >= 0) && !document.querySelector(".toast")`)
	small := smaller(t, p.picture())
	if len(small) > largest {
		t.Errorf("the picture has %d bytes, more than %d", len(small), largest)
	}
	if err := os.WriteFile(picture, small, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes", picture, len(small))
}

const chatLines = `document.querySelectorAll(".chat-list li").length`

// figures says that the charts have so many seconds.
func figures(seconds int) string {
	return fmt.Sprintf(`document.querySelector(".chart .line")?.getAttribute("points")?.split(" ").length > 2 * %d`, seconds)
}

func (p *tab) picture() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	raw, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

// smaller leaves two bits of each colour out, which nobody sees: the browser dithers its
// gradients, and noise does not compress.
func smaller(t *testing.T, raw []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	plain := image.NewRGBA(full.Bounds())
	draw.Draw(plain, plain.Bounds(), full, full.Bounds().Min, draw.Src)
	for i := range plain.Pix {
		if i%4 != 3 {
			plain.Pix[i] &^= 3
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, plain); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
