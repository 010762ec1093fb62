package pk

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Check returns what contradicts "bars sum to 100 with one win", and how many rounds and
// wins it has looked at.
func Check(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	ids, err := env.DB.QueryContext(ctx, "SELECT id FROM rooms WHERE kind = 'pk'")
	if err != nil {
		return nil, "", fmt.Errorf("pk: %w", err)
	}
	defer func() { _ = ids.Close() }()
	rounds, wins := 0, 0
	for ids.Next() {
		var id int64
		if err := ids.Scan(&id); err != nil {
			return nil, "", fmt.Errorf("pk: %w", err)
		}
		v, err := look(ctx, env, id)
		if err != nil {
			return nil, "", fmt.Errorf("pk of room %d: %w", id, err)
		}
		for _, text := range v.wrong {
			wrong = append(wrong, fmt.Sprintf("room %d: %s", id, text))
		}
		rounds, wins = rounds+v.rounds, wins+v.wins
	}
	return wrong, fmt.Sprintf("%d rounds, %d wins", rounds, wins), ids.Err()
}

type seen struct {
	wrong        []string
	rounds, wins int
}

func look(ctx context.Context, env *infra.Env, room int64) (v seen, err error) {
	k := keys(room)
	// In one transaction: a gift may come between two reads.
	p := env.Redis.TxPipeline()
	bar, list := p.HGetAll(ctx, k[0]), p.LRange(ctx, k[2], 0, -1)
	if _, err := p.Exec(ctx); err != nil || len(bar.Val()) == 0 {
		return v, err
	}
	n := map[string]int{}
	for _, f := range []string{"round", "left", "right", "winner"} {
		if n[f], err = strconv.Atoi(bar.Val()[f]); err != nil {
			return v, err
		}
	}
	fail := func(format string, args ...any) { v.wrong = append(v.wrong, fmt.Sprintf(format, args...)) }
	v.rounds, v.wins = n["round"], len(list.Val())
	if n["left"]+n["right"] != whole || n["left"] < 0 || n["right"] < 0 {
		fail("%d fen on the left and %d on the right are not %d", n["left"], n["right"], whole)
	}
	won := bar.Val()["state"] == "won"
	if won != (n["left"] == 0 || n["right"] == 0) {
		fail("%s at %d:%d", bar.Val()["state"], n["left"], n["right"])
	}
	winners := map[int]string{}
	for _, line := range list.Val() {
		r, winner, _ := strings.Cut(line, " ")
		round, err := strconv.Atoi(r)
		if err != nil {
			return v, err
		}
		if winners[round] != "" {
			fail("round %d was won by %s and by %s", round, winners[round], winner)
		}
		if round > n["round"] {
			fail("round %d was won and is to come", round)
		}
		winners[round] = winner
	}
	if last := winners[n["round"]]; won && last != bar.Val()["winner"] || !won && last != "" {
		fail("the round is %s by %s, and %q is noted", bar.Val()["state"], bar.Val()["winner"], last)
	}
	return v, nil
}
