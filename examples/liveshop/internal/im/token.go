package im

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// tokenTTL is how long a token waits for its connection.
const tokenTTL = 30 * time.Second

// A ticket is what a token stands for: one connection of a user to a room. It exists
// because a browser cannot send the Authorization header with a WebSocket, and what is in
// a URL ends up in logs: a token that was used, or is old, is worth nothing there.
type ticket struct {
	UID  int64  `json:"uid"`
	Name string `json:"name"`
	Room int64  `json:"room"`
}

func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "liveshop:im:token:" + hex.EncodeToString(sum[:])
}

// issue answers GET /rooms/{id}/im.
func (h *Hub) issue(r *api.Request) (any, error) {
	room, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if err := h.opts.Enter(ctx, room, r.UID); err != nil {
		return nil, err
	}
	name, err := h.opts.Name(ctx, r.UID)
	if err != nil {
		return nil, err
	}
	token, err := h.mint(ctx, ticket{r.UID, name, room})
	return map[string]string{"ws": api.Prefix + socketPath, "token": token}, err
}

func (h *Hub) mint(ctx context.Context, t ticket) (string, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	token := rand.Text()
	if err := h.rdb.Set(ctx, tokenKey(token), text, tokenTTL).Err(); err != nil {
		return "", fmt.Errorf("im: token: %w", err)
	}
	return token, nil
}

var errToken = errors.New("im: the token is unknown, used or expired")

// redeem returns what a token stands for, to the first who asks.
func (h *Hub) redeem(ctx context.Context, token string) (t ticket, err error) {
	text, err := h.rdb.GetDel(ctx, tokenKey(token)).Bytes()
	if errors.Is(err, redis.Nil) {
		return ticket{}, errToken
	}
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	return t, wrap("token", t.UID, err)
}

// fromOurPage keeps other people's pages from opening sockets with a token they got
// hold of. A client that is no browser sends no Origin.
func (h *Hub) fromOurPage(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "" || h.originOK(origin, r.Host)
}
