package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A demo is the program as anybody starts it: three servers behind one address.
type demo struct {
	base    string // http://host:port
	process *exec.Cmd
	logs    bytes.Buffer
	ended   chan error
}

var address = regexp.MustCompile(`http://[0-9.:\[\]]+`)

// binary builds the program and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "liveshop-e2e-")
	if err != nil {
		return "", err
	}
	tidy = append(tidy, func() error { return os.RemoveAll(dir) })
	path := filepath.Join(dir, "liveshop")
	build := exec.Command("go", "build", "-o", path, "./examples/liveshop")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./examples/liveshop: %w\n%s", err, out)
	}
	return path, nil
})

// startDemo starts a demo, which lasts until the tests are over. A failed test shows
// its logs.
func startDemo(args ...string) (*demo, error) {
	path, err := binary()
	if err != nil {
		return nil, err
	}
	args = append([]string{"demo", "-addr", "127.0.0.1:0", "-v"}, args...)
	d := &demo{process: exec.Command(path, args...), ended: make(chan error, 1)}
	d.process.Stderr = &d.logs
	stdout, err := d.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.process.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if d.base = address.FindString(lines.Text()); d.base != "" {
			break
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdout)
		d.ended <- d.process.Wait()
	}()
	if d.base == "" {
		return nil, fmt.Errorf("the demo printed no address: %w\n%s", <-d.ended, d.logs.Bytes())
	}
	tidy = append(tidy, d.stop)
	return d, nil
}

// stop ends the demo as Ctrl-C does, and returns an error if it does not end.
func (d *demo) stop() error {
	if err := d.process.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	select {
	case err := <-d.ended:
		return err
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("the demo did not end within %v", patience), d.process.Process.Kill(), <-d.ended)
	}
}

// A customer calls the shop as the page does.
type customer struct {
	t     *testing.T
	base  string
	UID   int64  `json:"uid"`
	Name  string `json:"name"`
	Token string `json:"token"`
}

var phones atomic.Int64

// newPhone is nobody's yet.
func newPhone() string {
	return "139" + strconv.FormatInt(10_000_000+time.Now().UnixMilli()%10_000*1_000+phones.Add(1), 10)
}

func (d *demo) login(t *testing.T) *customer {
	t.Helper()
	c := &customer{t: t, base: d.base}
	phone := newPhone()
	c.call("POST /sms", map[string]string{"phone": phone}, nil)
	c.call("POST /login", map[string]string{"phone": phone, "code": "1000"}, c)
	return c
}

// call makes a call that must succeed, and decodes its data. Told that a server went away
// it asks again, as the page does: all that tests ask for may be asked for twice.
func (c *customer) call(route string, in, out any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for {
		status, answer, err := c.once(ctx, route, in)
		switch {
		case err != nil:
			c.t.Fatalf("%s: %v", route, err)
		case status >= http.StatusBadGateway:
			c.t.Logf("%s: status %d, asking again", route, status)
			select {
			case <-time.After(200 * time.Millisecond):
				continue
			case <-ctx.Done():
				c.t.Fatalf("%s: status %d for %v", route, status, patience)
			}
		case status != http.StatusOK:
			c.t.Fatalf("%s: status %d: %s", route, status, answer)
		}
		if out != nil {
			if err := json.Unmarshal(answer, out); err != nil {
				c.t.Fatalf("%s: %v: %s", route, err, answer)
			}
		}
		return
	}
}

// once returns the status of one call, and its data, or its whole answer if it failed.
func (c *customer) once(ctx context.Context, route string, in any) (status int, data json.RawMessage, err error) {
	method, path, _ := strings.Cut(route, " ")
	text, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return res.StatusCode, body, err
	}
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	err = json.Unmarshal(body, &answer)
	return res.StatusCode, answer.Data, err
}

// A stage is a room of a test's own, and what is for sale in it.
type stage struct {
	ID    int64 `json:"id"`
	host  *customer
	sku   string
	title string
}

var stages atomic.Int64

// stage opens a room that sells units of one product at 9.90 yuan.
func (d *demo) stage(t *testing.T, units int) stage {
	t.Helper()
	return d.stageOf(t, "normal", units)
}

// stageOf is stage, for another kind of room.
func (d *demo) stageOf(t *testing.T, kind string, units int) stage {
	t.Helper()
	host := d.login(t)
	n := stages.Add(1)
	s := stage{host: host, sku: fmt.Sprintf("e2e-%d-%d", time.Now().UnixMilli(), n), title: fmt.Sprintf("Lamp %d", n)}
	host.call("POST /admin/products", map[string]any{"sku": s.sku, "host": host.UID, "title": s.title, "image": "lamp", "fen": 990, "total": units, "per_user": 2}, nil)
	host.call("POST /rooms", map[string]any{"title": fmt.Sprintf("Stage %d", n), "kind": kind}, &s)
	return s
}

func (s stage) url(d *demo) string { return fmt.Sprintf("%s/#/rooms/%d", d.base, s.ID) }

// shared is the demo of all tests that need no other. Orders wait as long as a busy
// machine may need to pay them.
var shared = sync.OnceValues(func() (*demo, error) { return startDemo("-hold", "10m") })

// tidy is what TestMain does at the end, the last first.
var tidy []func() error

// TestMain ends what the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	for i := len(tidy) - 1; i >= 0; i-- {
		if err := tidy[i](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
