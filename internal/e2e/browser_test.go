package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// patience is how long a test waits for what must come. The machine may be busy.
const patience = time.Minute

var chromium = sync.OnceValues(func() (context.Context, error) {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		return nil, nil
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, // tests run as root in containers
		chromedp.Flag("lang", "en"), chromedp.Flag("hide-scrollbars", true))
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), opts...)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	tidy = append(tidy, func() error { cancelBrowser(); cancelAllocator(); return nil })
	return browser, chromedp.Do(browser)
})

// start returns a demo and the browser that all tests share. Without arguments for the
// demo it is shared as well.
func start(t *testing.T, args ...string) (*demo, context.Context) {
	t.Helper()
	browser, err := chromium()
	switch {
	case err != nil:
		t.Fatalf("chromium: %v", err)
	case browser == nil && os.Getenv("E2E_REQUIRED") == "1":
		t.Fatal("E2E_REQUIRED=1, and there is no chromium on the PATH")
	case browser == nil:
		t.Skip("no chromium on the PATH (Debian: apt-get install chromium)")
	}
	run := shared
	if len(args) > 0 {
		run = func() (*demo, error) { return startDemo(args...) }
	}
	d, err := run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of the demo so far:\n%s", last(d.logs.String(), 4000))
		}
	})
	return d, browser
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// A tab is one visitor: storage and connections of its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu   sync.Mutex
	said []string // what the page complained of
}

// open opens a page. What goes wrong in it fails the test.
func open(t *testing.T, browser context.Context, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1440, 880)); err != nil {
		t.Fatal(err)
	}
	p.motion("reduce")
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			// An answer that is no success is the page's business to tell of.
			if m.Type == "error" && !strings.HasPrefix(m.Text, "Failed to load resource") || m.IsException() {
				p.mu.Lock()
				p.said = append(p.said, m.String())
				p.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			p.keepPicture()
		}
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.said) > 0 {
			t.Errorf("the page complained:\n%s", strings.Join(p.said, "\n"))
		}
	})
	p.do(chromedp.Navigate(url))
	return p
}

// motion sets what the visitor prefers. Tabs begin with "reduce": without a graphics
// card, a stage that moves costs a whole core.
func (p *tab) motion(preference string) {
	p.t.Helper()
	command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-reduced-motion", Value: preference},
	}})
}

// keepPicture saves what the page looked like; with -artifacts it stays.
func (p *tab) keepPicture() {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Logf("no picture: %v", err)
		return
	}
	file := filepath.Join(p.t.ArtifactDir(), fmt.Sprintf("%d.png", time.Now().UnixNano()))
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		p.t.Log(err)
		return
	}
	p.t.Logf("the page at the end: %s", file)
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) click(css string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(css), chromedp.NodeVisible)); err != nil {
		p.t.Fatalf("click %s: %v", css, err)
	}
}

func (p *tab) write(css, text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS(css), text, chromedp.NodeVisible)); err != nil {
		p.t.Fatalf("write %q into %s: %v", text, css, err)
	}
}

// wait waits until an expression is true in the page.
func (p *tab) wait(what, expression string) {
	p.t.Helper()
	if !p.soon(expression, patience) {
		p.t.Fatalf("waited %v in vain: %s", patience, what)
	}
}

func (p *tab) soon(expression string, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(p.ctx, within+5*time.Second)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[bool]("!!("+expression+")", chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(within)))
	return err == nil
}

// eval returns the value of an expression; a promise's, if it is one.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// login fills the dialog in that is open.
func (p *tab) login() {
	p.t.Helper()
	p.write("#phone", newPhone())
	p.click("dialog .primary")
	p.write("#code", "1000")
	p.click("dialog .primary")
	p.wait("the balance of who is logged in", `document.querySelector(".tools .wallet:not([hidden])") && !document.querySelector("dialog")`)
}

// command sends a command of the DevTools protocol to the tab.
func command[P, R any](p *tab, c cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, c, params)
	if err != nil {
		p.t.Fatalf("%s: %v", c.Method, err)
	}
	return result
}
