package e2e

import (
	"bytes"
	"context"
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

// The picture of the example's README: a room with its customers, an order to be paid,
// and the control room beside them, after a minute of life.
func TestPicture(t *testing.T) {
	if os.Getenv("E2E_SCREENSHOT") != "1" {
		t.Skip("E2E_SCREENSHOT=1 writes " + picture)
	}
	d, browser := start(t, "-hold", "2m")
	p := open(t, browser, d.base+"/")
	p.do(chromedp.EmulateViewport(1440, 880))
	p.wait("rooms with customers", `[...document.querySelectorAll(".card .figures")].some((f) => Number(f.textContent.match(/\d+/)) > 1)`)
	p.click(".card a")
	p.click(".tools .primary")
	p.login()
	p.wait("the connection", live)
	p.click(".operator-button")
	p.click("#operator .op:first-of-type") // start a sale
	p.wait("a minute of figures", `document.querySelector(".chart .line")?.getAttribute("points")?.split(" ").length > 100`)
	p.click(".ware-row .buy:enabled")
	p.wait("a reserved order", pending)
	p.motion("no-preference")
	p.wait("a gift", `document.querySelector(".gift-banner")`)
	small := smaller(t, p.picture())
	if len(small) > largest {
		t.Errorf("the picture has %d bytes, more than %d", len(small), largest)
	}
	if err := os.WriteFile(picture, small, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes", picture, len(small))
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
