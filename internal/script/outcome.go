package script

import (
	"errors"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

// errNoOutcome is what a hook leaves behind that neither runs a command nor
// fails it.
var errNoOutcome = errors.New("script: the client returned without an outcome")

// Refused is a verdict of the script itself, given before its first write
// with redis.error_reply('REFUSED <Code> <Detail>').
type Refused struct{ Code, Detail string }

func (r *Refused) Error() string {
	if r.Detail == "" {
		return "refused: " + r.Code
	}
	return "refused: " + r.Code + " " + r.Detail
}

// A verdict is what the error of one attempt says about that attempt.
type verdict int

const (
	answered verdict = iota
	refused          // by the script, nothing written
	noScript         // nothing ran: the server wants the source
	hopeful          // nothing ran, and that may pass within a second
	hopeless         // nothing ran, and the next attempt would fare no better
	unknown          // it may have run
	broken           // it ran in part, and the next attempt would fare no better
)

// judge classifies err, with which an attempt ended that was written to a
// connection writes times: more than once if go-redis followed MOVED or ASK.
func judge(err error, writes int) verdict {
	var reply redis.Error
	fromServer := errors.As(err, &reply)
	if writes == 0 {
		if errors.Is(err, redis.ErrClosed) || fromServer && judgeReply(reply.Error()) == hopeless {
			return hopeless
		}
		return hopeful
	}
	if !fromServer {
		// This includes a refused dial: in a pipeline a command can carry the
		// error of a first dial although a second one succeeded and its reply
		// was lost.
		return unknown
	}
	msg := reply.Error()
	switch code, _, _ := strings.Cut(msg, " "); code {
	case "MOVED", "ASK":
		// The same holds for a redirect that was followed.
		if writes > 1 {
			return unknown
		}
		return hopeful
	}
	return judgeReply(msg)
}

// judgeReply classifies an error reply other than a redirect.
func judgeReply(msg string) verdict {
	code, rest, _ := strings.Cut(msg, " ")
	if m := raisedBefore7.FindStringSubmatch(msg); m != nil {
		code = m[1]
	}
	switch code {
	// A command inside the script may have raised these, but then it was the
	// script's first write: Redis lets a script that has written go on.
	case "READONLY", "NOREPLICAS":
		return hopeful
	case "OOM", "MISCONF":
		return hopeless
	}
	if raised.MatchString(msg) {
		return broken
	}
	switch code {
	case "REFUSED":
		return refused
	case "NOSCRIPT":
		return noScript
	case "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY":
		return hopeful
	case "NOAUTH", "WRONGPASS", "CROSSSLOT":
		return hopeless
	case "NOPERM":
		if strings.Contains(rest, "script") { // the right to a command inside it
			return broken
		}
		return hopeless
	case "ERR":
		switch {
		case strings.HasPrefix(rest, "max number of clients reached"):
			return hopeful
		case strings.HasPrefix(rest, "unknown command"):
			return hopeless
		}
	}
	return broken
}

// raised matches what Redis 7 adds to an error that left a script other than by
// return; raisedBefore7 is how Redis 6.2 reports the two that matter.
var (
	raised        = regexp.MustCompile(` script: [0-9a-f]{40}, on @user_script:\d+\.$`)
	raisedBefore7 = regexp.MustCompile(
		`^ERR Error running script \(call to f_[0-9a-f]{40}\): @user_script:\d+: @user_script: \d+: -(OOM|READONLY) `)
)

func parseRefused(err error) error {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return err
	}
	_, rest, _ := strings.Cut(reply.Error(), " ")
	code, detail, _ := strings.Cut(rest, " ")
	return &Refused{Code: code, Detail: detail}
}
