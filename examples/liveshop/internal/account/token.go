package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

const (
	codeTTL  = 5 * time.Minute
	tries    = 5 // of one code: there are only 9,000
	tokenTTL = 7 * 24 * time.Hour
)

func codeKey(phone string) string  { return "liveshop:sms:{" + phone + "}:code" }
func triesKey(phone string) string { return "liveshop:sms:{" + phone + "}:tries" }

// tokenKey keeps a hash: who reads Redis, or a backup of it, has no tokens.
func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "liveshop:token:" + hex.EncodeToString(sum[:])
}

// sendCode would send a text message. In this shop the code is always the same.
func (a *Accounts) sendCode(ctx context.Context, phone string) error {
	return a.env.Together(ctx, codeKey(phone), func(p redis.Pipeliner) {
		p.Set(ctx, codeKey(phone), "1000", codeTTL)
		p.Set(ctx, triesKey(phone), 0, codeTTL)
	})
}

// checkCode compares, at most tries times. It counts first, so that those who guess
// at the same time are counted too.
func (a *Accounts) checkCode(ctx context.Context, phone, code string) error {
	if !phonePattern.MatchString(phone) {
		return api.Bad("phone: want 11 digits that begin with 1")
	}
	var count *redis.IntCmd
	var want *redis.StringCmd
	err := a.env.Together(ctx, codeKey(phone), func(p redis.Pipeliner) {
		count = p.Incr(ctx, triesKey(phone))
		p.Expire(ctx, triesKey(phone), codeTTL)
		want = p.Get(ctx, codeKey(phone))
	})
	if err != nil {
		return err
	}
	if want.Val() == "" || count.Val() > tries || subtle.ConstantTimeCompare([]byte(want.Val()), []byte(code)) != 1 {
		return &api.Error{Status: http.StatusUnauthorized, Code: "wrong_code", Msg: "wrong or expired code; ask for a new one"}
	}
	return a.env.Together(ctx, codeKey(phone), func(p redis.Pipeliner) {
		p.Del(ctx, codeKey(phone), triesKey(phone)) // one login a code
	})
}

// newToken returns 128 random bits. Redis knows whose they are, and can forget it at
// once: that is why there is no JWT here.
func (a *Accounts) newToken(ctx context.Context, uid int64) (string, error) {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	token := hex.EncodeToString(b)
	key := tokenKey(token)
	return token, a.env.Together(ctx, key, func(p redis.Pipeliner) { p.Set(ctx, key, uid, tokenTTL) })
}

// Authenticate returns whose token it is, 0 if nobody's.
func (a *Accounts) Authenticate(ctx context.Context, token string) (uid int64, err error) {
	key := tokenKey(token)
	var got *redis.StringCmd
	if err := a.env.Together(ctx, key, func(p redis.Pipeliner) { got = p.Get(ctx, key) }); err != nil {
		return 0, err
	}
	if uid, err = got.Int64(); errors.Is(err, redis.Nil) {
		return 0, nil
	}
	return uid, err
}

func (a *Accounts) revoke(ctx context.Context, token string) error {
	return a.env.Redis.Del(ctx, tokenKey(token)).Err()
}
