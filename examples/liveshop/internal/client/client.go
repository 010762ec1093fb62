// Package client calls the shop over HTTP, as its customers do.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// A Client is one customer, or the operator. It is used by one goroutine at a time.
type Client struct {
	HTTP *http.Client  // shared: each has connections of its own
	Base string        // http://host:port
	From string        // an address to be counted as, which a server believes of its own machine
	Me   account.Login // once logged in
	// Saw is told of each call and how long it took; nil: nobody.
	Saw func(pattern string, took time.Duration, err error)
}

// Call makes a call and decodes the data of its answer into out, unless that is nil.
// An answer that is no success is an *api.Error. In any other error, and with a
// status of 500 or more, the call may have been carried out.
func (c *Client) Call(ctx context.Context, pattern string, in, out any) (err error) {
	if c.Saw != nil {
		began := time.Now()
		defer func() { c.Saw(pattern, time.Since(began), err) }()
	}
	method, path, _ := strings.Cut(pattern, " ")
	var body io.Reader = http.NoBody
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+api.Prefix+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.Me.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Me.Token)
	}
	if c.From != "" {
		req.Header.Set("X-Forwarded-For", c.From)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return err
	}
	var answer struct {
		Code, Msg, Trace string
		Data             json.RawMessage
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return &api.Error{Status: res.StatusCode, Code: "no_json", Msg: fmt.Sprintf("%.100s", text)}
	}
	if res.StatusCode != http.StatusOK {
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return &api.Error{
			Status: res.StatusCode, Code: answer.Code, Msg: answer.Msg + " (" + answer.Trace + ")",
			RetryAfter: time.Duration(seconds) * time.Second,
		}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Data, out)
}

// Sure is Call until there is an answer: it repeats what was denied for now, and what
// failed in the server or on the way, until ctx ends. The call must bear being
// carried out twice.
func (c *Client) Sure(ctx context.Context, pattern string, in, out any) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := c.Call(ctx, pattern, in, out)
		refused := new(api.Error)
		answered := errors.As(err, &refused)
		if err == nil || answered && refused.Status < 500 && refused.Status != http.StatusTooManyRequests {
			return err
		}
		wait := pause
		if answered {
			wait = cmp.Or(refused.RetryAfter, pause)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// LogIn asks for a code and logs in.
func (c *Client) LogIn(ctx context.Context, phone string) error {
	for {
		if err := c.Sure(ctx, "POST /sms", map[string]string{"phone": phone}, nil); err != nil {
			return err
		}
		err := c.Sure(ctx, "POST /login", map[string]string{"phone": phone, "code": "1000"}, &c.Me)
		if refused := new(api.Error); errors.As(err, &refused) && refused.Code == "wrong_code" {
			continue // the answer to a login that used the code up was lost
		}
		return err
	}
}
