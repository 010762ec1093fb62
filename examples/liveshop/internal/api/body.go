package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxBody is how long the body of a call may be.
const maxBody = 64 << 10

// Decode reads the JSON body, of 64 KB at most, into v. Fields that v does not have
// are refused: a misspelt one would be ignored otherwise.
func (r *Request) Decode(v any) error {
	// The ctx of a call does not end a read: a body that drips in would keep it for ever.
	wire := http.NewResponseController(r.W)
	_ = wire.SetReadDeadline(time.Now().Add(patience)) // a test's writer has no wire
	d := json.NewDecoder(http.MaxBytesReader(r.W, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, end := d.Token(); end == nil {
			err = Bad("body: more than one JSON value")
		} else if !errors.Is(end, io.EOF) {
			err = end
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // which stays: the server, too, would wait for the rest
		r.W.Header().Set("Connection", "close")
		return &Error{Status: http.StatusRequestTimeout, Code: "too_slow", Msg: "the body did not come in time"}
	}
	_ = wire.SetReadDeadline(time.Time{})
	return unreadable(err)
}

// unreadable says what is wrong with a body, in words of JSON and not of Go.
func unreadable(err error) error {
	no, tooLong, wrong := new(Error), new(http.MaxBytesError), new(json.UnmarshalTypeError)
	switch {
	case err == nil, errors.As(err, &no):
		return err
	case errors.As(err, &tooLong):
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Msg: "the body is too long"}
	case errors.As(err, &wrong):
		return Bad("%s: want %s, not a JSON %s", cmp.Or(wrong.Field, "body"), kind(wrong.Type), wrong.Value)
	case errors.Is(err, io.EOF):
		return Bad("body: want a JSON object, and there is nothing")
	}
	return Bad("body: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number below 2^63"
	case reflect.Slice:
		return "an array"
	default:
		return "an object"
	}
}

// ID returns a number of the path, which is positive.
func (r *Request) ID(name string) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil || id <= 0 {
		return 0, Bad("%s: %q, want a number above 0", name, r.PathValue(name))
	}
	return id, nil
}

// Token returns what stands behind Bearer, which may be written in any case; empty if
// nothing.
func (r *Request) Token() string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}
