package sale

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/proc"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// childEnv is the variable that makes this test binary a server with buyers of its own.
const childEnv = "SALE_TEST_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := runChild(context.Background(), text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	shoptest.AtOnce(10)
	shoptest.Main(m)
}

// A child is a server with eight buyers at a time, until it is killed.
type child struct {
	Config infra.Config
	Hold   time.Duration
	People []int64
}

// runChild prints the number of each order that was paid for.
func runChild(ctx context.Context, text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	env, err := infra.Open(ctx, c.Config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	accounts, err := account.New(ctx, env)
	if err != nil {
		return err
	}
	s, err := New(ctx, env, accounts.Wallet, &ears{}, Options{Hold: c.Hold})
	if err != nil {
		return err
	}
	go func() { _ = s.Run(ctx) }()
	crowds := []*crowd{newCrowd(1, "tea", &shop{Sale: s}), newCrowd(2, "pot", &shop{Sale: s})}
	for _, c := range crowds {
		c.told = func(order int64) { fmt.Println(order) }
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := i; n < len(c.People); n += 8 {
				_ = crowds[rand.IntN(2)].buy(ctx, c.People[n], n%10 == 9) // a refusal is an answer
			}
		})
	}
	wg.Wait()
	return nil
}

// Servers are killed with SIGKILL while they sell: between the script that takes the
// stock and the row in SQL, between the charge and the confirm, and anywhere else. Others
// finish what they began. One of the two rooms is a star's.
func TestServersKilled(t *testing.T) {
	t.Parallel()
	const kills = 4
	env := shoptest.Env(t)
	opts := Options{Hold: 2 * time.Second}
	sh := newShop(t, env, opts)
	sh.opened(t, 1, Product{SKU: "tea", Total: 10_000})
	sh.opens(t, 2, true, Product{SKU: "pot", Total: 10_000})
	var lives []*live
	for _, room := range []int64{1, 2} {
		l, err := sh.of(t.Context(), room)
		require.NoError(t, err)
		lives = append(lives, l)
	}
	told := map[int64]bool{}
	ahead := map[int64]int{} // kills at which Redis had what SQL did not, by room
	sh.stop()                // from now on there are only the children, one at a time
	kill := 0
	for ; kill < kills || len(ahead) < len(lives); kill++ { // and until both were ahead
		cfg := env.Config
		cfg.Server = "child" + strconv.Itoa(kill)
		text, err := json.Marshal(child{cfg, opts.Hold, sh.users(t, 1000, 1000)})
		require.NoError(t, err)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		p, err := proc.Start(cmd)
		require.NoError(t, err)
		t.Cleanup(p.Kill)
		lines := bufio.NewScanner(out)
		for n := 40 + rand.IntN(40); lines.Scan(); {
			id, err := strconv.ParseInt(lines.Text(), 10, 64)
			require.NoError(t, err)
			told[id] = true
			if n--; n == 0 {
				p.Kill()
			}
		}
		for _, l := range lives {
			info, err := l.stock.Inspect(t.Context())
			require.NoError(t, err)
			behind := func(journal string) bool {
				at, err := sh.store.Checkpoint(t.Context(), journal)
				require.NoError(t, err)
				return at != info.LastEntries[journal]
			}
			if slices.ContainsFunc(l.journals(), behind) {
				ahead[l.room]++
			}
		}
	}
	t.Logf("%d kills, at %v of them Redis was ahead of SQL; %d payments were acknowledged", kill, ahead, len(told))

	cfg := env.Config
	cfg.Server = "last"
	last := newShop(t, shoptest.Open(t, cfg, false), opts)
	r := &rush{crowd: newCrowd(1, "tea", last), ctx: t.Context()}
	r.paid = told
	r.finish(t, last)
	r.allPaid(t, last)
	require.Positive(t, last.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'cancelled'"))
	holds(t, env)
}
