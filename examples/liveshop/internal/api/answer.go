package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/stock"
)

// An Error is an answer that is no success.
type Error struct {
	Status     int    // of HTTP
	Code       string // for programs
	Msg        string // for people
	RetryAfter time.Duration
	Data       any // more for programs
}

func (e *Error) Error() string { return e.Code + ": " + e.Msg }

// Bad is a request that can never succeed as it is.
func Bad(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: "bad_request", Msg: fmt.Sprintf(format, args...)}
}

// NotFound is about something that is not there.
func NotFound(what string) *Error {
	return &Error{Status: http.StatusNotFound, Code: "not_found", Msg: "no such " + what}
}

// Conflict is a request that the state of things forbids; code says which.
func Conflict(code, msg string) *Error {
	return &Error{Status: http.StatusConflict, Code: code, Msg: msg}
}

// Forbidden is a request that this user may not make.
func Forbidden(msg string) *Error {
	return &Error{Status: http.StatusForbidden, Code: "forbidden", Msg: msg}
}

// Failure returns the answer for any error. What it does not know is 500, without a
// text: it may be about things that are none of the caller's business, and the log
// has it under the answer's trace.
func Failure(err error) *Error {
	if e := new(Error); errors.As(err, &e) {
		return e
	}
	unknown := &Error{Status: http.StatusServiceUnavailable, Code: "unknown", Msg: "it may have happened: ask again with the same key", RetryAfter: time.Second}
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return NotFound("thing")
	case errors.Is(err, stock.ErrUnknown): // one value in all packages, as the next
		return unknown
	case errors.Is(err, stock.ErrUnavailable), errors.Is(err, cache.ErrLoad), errors.Is(err, cache.ErrOverloaded),
		errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests), refused(err):
		return &Error{Status: http.StatusServiceUnavailable, Code: "unavailable", Msg: "try again", RetryAfter: time.Second}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), cutOff(err):
		return unknown
	}
	return &Error{Status: http.StatusInternalServerError, Code: "internal", Msg: "it did not work"}
}

// refused is a plain command that was not carried out; the packages have ErrUnavailable.
func refused(err error) bool {
	if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) {
		return true
	}
	return slices.ContainsFunc([]string{"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"}, func(prefix string) bool {
		return redis.HasErrorPrefix(err, prefix)
	})
}

// cutOff is a plain command, or a statement, whose answer did not come; the packages have
// ErrUnknown.
func cutOff(err error) bool {
	broken := net.Error(nil)
	return errors.As(err, &broken) || errors.Is(err, io.EOF) || errors.Is(err, mysql.ErrInvalidConn)
}

// An envelope is the body of every answer.
type envelope struct {
	Code  string `json:"code"`
	Msg   string `json:"msg,omitempty"`
	Data  any    `json:"data"`
	Trace string `json:"trace"`
}

func write(w http.ResponseWriter, status int, e envelope) {
	body, err := json.Marshal(e)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"code":"internal","data":null}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left does not want it
}

func writeError(w http.ResponseWriter, e *Error, trace string) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	write(w, e.Status, envelope{Code: e.Code, Msg: e.Msg, Data: e.Data, Trace: trace})
}

// recovered makes a panic the error of one call.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}
