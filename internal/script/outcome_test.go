package script

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// reply is an error reply as go-redis returns those that it has no type for.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

const (
	someSHA   = "0123456789abcdef0123456789abcdef01234567"
	redis7    = " script: " + someSHA + ", on @user_script:3."
	redis62   = "ERR Error running script (call to f_" + someSHA + "): @user_script:3: @user_script: 3: "
	oom       = "OOM command not allowed when used memory > 'maxmemory'."
	wrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		err    error
		writes int
		want   verdict
	}{
		// Not sent.
		{io.EOF, 0, hopeful},
		{os.ErrDeadlineExceeded, 0, hopeful},
		{redis.ErrPoolTimeout, 0, hopeful},
		{redis.ErrPoolExhausted, 0, hopeful},
		{reply("LOADING Redis is loading the dataset in memory"), 0, hopeful},
		{reply("NOAUTH Authentication required."), 0, hopeless},
		{fmt.Errorf("handshake: %w", reply("WRONGPASS invalid username-password pair or user is disabled.")), 0, hopeless},
		{redis.ErrClosed, 0, hopeless},

		// Sent, and no reply.
		{io.EOF, 1, unknown},
		{os.ErrDeadlineExceeded, 1, unknown},
		{errors.New("read tcp: connection reset by peer"), 1, unknown},
		{redis.ErrPoolTimeout, 1, unknown}, // after a redirect, or stale in a pipeline
		{errNoOutcome, 1, unknown},

		// Answered: nothing ran.
		{reply("MOVED 3999 127.0.0.1:6381"), 1, hopeful},
		{reply("ASK 3999 127.0.0.1:6381"), 1, hopeful},
		{reply("MOVED 3999 127.0.0.1:6381"), 2, unknown}, // stale in a pipeline
		{reply("ASK 3999 127.0.0.1:6381"), 2, unknown},
		{reply("TRYAGAIN Multiple keys request during rehashing of slot"), 2, hopeful},
		{reply("CLUSTERDOWN The cluster is down"), 1, hopeful},
		{reply("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), 1, hopeful},
		{reply("BUSY Redis is busy running a script."), 1, hopeful},
		{reply("ERR max number of clients reached"), 1, hopeful},
		{reply("NOSCRIPT No matching script. Please use EVAL."), 2, noScript},
		{reply("REFUSED SOLDOUT"), 1, refused},
		{reply("CROSSSLOT Keys in request don't hash to the same slot"), 1, hopeless},
		{reply("NOPERM this user has no permissions to run the 'evalsha' command"), 1, hopeless},
		{reply("ERR unknown command 'evalsha', with args beginning with: "), 1, hopeless},

		// Answered by a script whose first write was refused.
		{reply(oom + redis7), 1, hopeless},
		{reply(redis62 + "-" + oom), 1, hopeless},
		{reply("READONLY You can't write against a read only replica." + redis7), 1, hopeful},
		{reply(redis62 + "-READONLY You can't write against a read only replica. "), 1, hopeful},
		{reply("NOREPLICAS Not enough good replicas to write." + redis7), 1, hopeful},
		{reply("MISCONF Redis is configured to save RDB snapshots" + redis7), 1, hopeless},

		// Answered by a script that failed on its way.
		{reply(wrongType + redis7), 1, broken},
		{reply(wrongType), 1, broken},
		{reply(redis62 + wrongType), 1, broken},
		{reply("ERR user_script:3: said -OOM command" + redis7), 1, broken},
		{reply("BUSY raised by the script itself" + redis7), 1, broken},
		{reply("NOSCRIPT raised by the script itself" + redis7), 1, broken},
		{reply("BUSYGROUP Consumer Group name already exists"), 1, broken},
		{reply("NOPERM ACL failure in script: User a has no permissions to run the 'hget' command" + redis7), 1, broken},
		{reply("NOPERM The user executing the script can't run this command or subcommand"), 1, broken},
		{reply(""), 1, broken},
	} {
		require.Equal(t, c.want, judge(c.err, c.writes), "%q written %d times", c.err, c.writes)
		require.Equal(t, c.want, judge(fmt.Errorf("wrapped: %w", c.err), c.writes), "%q, wrapped", c.err)
	}
}

// Whatever a server replies: only the words of the list mean that nothing ran,
// and a Refused gives back what the script said.
func FuzzJudgeReply(f *testing.F) {
	for _, s := range []string{oom, oom + redis7, redis62 + "-" + oom, wrongType, "REFUSED A b c", "REFUSED", "ERR", "NOPERM script", ""} {
		f.Add(s)
	}
	nothingRan := []string{
		"READONLY", "NOREPLICAS", "OOM", "MISCONF", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY",
		"NOAUTH", "WRONGPASS", "CROSSSLOT", "NOPERM", "ERR max number of clients", "ERR unknown command",
		"ERR Error running script",
	}
	f.Fuzz(func(t *testing.T, msg string) {
		code, _, _ := strings.Cut(msg, " ")
		switch v := judgeReply(msg); v {
		case hopeful, hopeless:
			for _, s := range nothingRan {
				if strings.HasPrefix(msg, s) && (code == s || strings.Contains(s, " ")) {
					return
				}
			}
			t.Fatalf("%q passed for a script that did not run", msg)
		case refused:
			var r *Refused
			if !errors.As(parseRefused(reply(msg)), &r) ||
				strings.TrimRight("REFUSED "+r.Code+" "+r.Detail, " ") != strings.TrimRight(msg, " ") {
				t.Fatalf("%q became %+v", msg, r)
			}
		case noScript:
			if code != "NOSCRIPT" {
				t.Fatalf("%q passed for NOSCRIPT", msg)
			}
		case broken:
		default:
			t.Fatalf("%q: verdict %d of a reply", msg, v)
		}
	})
}
