package shorturl

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

const (
	clickQueue = 8192 // clicks that wait
	clickBatch = 256
	maxHeader  = 512 // bytes that are kept of a referrer or user agent
)

// A Click is one redirect of a visitor; HEAD requests and known bots are none.
type Click struct {
	Code      string
	Time      time.Time
	Referrer  string // at most 512 bytes
	UserAgent string // at most 512 bytes
	// Address is a keyed hash of the client's address: the same visitor has the same,
	// and it cannot be turned back without Options.Key.
	Address string
}

type rawClick struct {
	code, referrer, agent, address string
	at                             time.Time
}

// click queues a click without waiting.
func (s *Service) click(c rawClick) {
	select {
	case <-s.closing:
		s.dropped.Add(1)
		return
	default:
	}
	select {
	case s.queue <- c:
	default:
		s.dropped.Add(1)
	}
}

// record hands clicks to Options.Clicks until Close, and then those that still wait.
func (s *Service) record(ctx context.Context) {
	for {
		select {
		case c := <-s.queue:
			s.deliver(ctx, c)
		case <-s.closing:
			for {
				select {
				case c := <-s.queue:
					s.deliver(ctx, c)
				default:
					return
				}
			}
		}
	}
}

// deliver hands over c and what waits behind it, in one batch.
func (s *Service) deliver(ctx context.Context, c rawClick) {
	batch := make([]Click, 0, clickBatch)
	for more := true; more; {
		if !isBot(c.agent) {
			batch = append(batch, Click{
				Code: c.code, Time: c.at, Referrer: cut(c.referrer), UserAgent: cut(c.agent), Address: s.hash(c.address),
			})
		}
		if len(batch) == clickBatch {
			break
		}
		select {
		case c = <-s.queue:
		default:
			more = false
		}
	}
	if len(batch) == 0 {
		return
	}
	if err := s.opts.Clicks.Record(ctx, batch); err != nil {
		s.dropped.Add(uint64(len(batch)))
		s.opts.Logger.Warn("shorturl: clicks were lost", "clicks", len(batch), "error", err)
		return
	}
	s.clicked.Add(uint64(len(batch)))
}

func (s *Service) hash(address string) string {
	h := hmac.New(sha256.New, s.opts.Key)
	h.Write([]byte("address\n" + address))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func cut(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxHeader)], "")
}

// botWords are in the user agents of crawlers, link previews and monitors.
var botWords = []string{
	"bot", "crawl", "spider", "slurp", "facebookexternalhit", "preview", "whatsapp", "telegram", "embedly", "skypeuri",
	"vkshare", "pingdom", "uptime", "monitor", "headlesschrome", "curl/", "wget/", "python-requests", "go-http-client",
}

// isBot reports whether the user agent is that of a known bot, or missing.
func isBot(agent string) bool {
	lower := strings.ToLower(agent)
	for _, w := range botWords {
		if strings.Contains(lower, w) {
			return true
		}
	}
	return agent == ""
}
