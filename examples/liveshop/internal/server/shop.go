package server

import (
	"context"
	"fmt"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/feed"
	"github.com/spillway-go/spillway/examples/liveshop/internal/gift"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/page"
	"github.com/spillway-go/spillway/examples/liveshop/internal/pk"
	"github.com/spillway-go/spillway/examples/liveshop/internal/rain"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/examples/liveshop/internal/sale"
)

// wire makes the parts and tells them of each other. This is the place to add one:
// make it, connect it, add it.
func (s *Server) wire(ctx context.Context) error {
	env := s.env
	accounts, err := account.New(ctx, env)
	if err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if s.mux, err = api.New(env, accounts.Authenticate); err != nil {
		return err
	}
	s.add("account", accounts)

	var rooms *room.Rooms // messages and rooms know each other
	hub, err := im.New(env, im.Options{
		Name: accounts.Name,
		Enter: func(ctx context.Context, id, _ int64) error {
			_, err := rooms.GetOpen(ctx, id)
			return err
		},
		Barrage: func() bool { return !env.Switches.On(infra.NoBarrage) },
	})
	if err != nil {
		return fmt.Errorf("im: %w", err)
	}
	s.add("im", hub)
	if rooms, err = room.New(ctx, env, hub, accounts.Name); err != nil {
		return fmt.Errorf("room: %w", err)
	}
	s.add("room", rooms)
	sales, err := sale.New(ctx, env, accounts.Wallet, reliable{hub}, sale.Options{Hold: env.Config.Hold})
	if err != nil {
		return fmt.Errorf("sale: %w", err)
	}
	s.add("sale", sales)
	accounts.OnRegister(sales.Welcome)

	pks := pk.New(env, rooms, hub, accounts.Name)
	s.add("pk", pks)
	gifts, err := gift.New(env, gift.Options{Wallet: accounts.Wallet, Rooms: rooms, PK: pks, Announcer: hub, Name: accounts.Name})
	if err != nil {
		return fmt.Errorf("gift: %w", err)
	}
	s.add("gift", gifts)
	rains, err := rain.New(ctx, env, rain.Options{Wallet: accounts.Wallet, Rooms: rooms, Announcer: hub, Name: accounts.Name})
	if err != nil {
		return fmt.Errorf("rain: %w", err)
	}
	s.add("rain", rains)
	feeds, err := feed.New(ctx, env, accounts.Name)
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	s.add("feed", feeds)

	rooms.OnOpen(func(ctx context.Context, r room.Room) error { return sales.Open(ctx, r.ID, r.Host, r.Star) })
	rooms.OnClose(func(ctx context.Context, r room.Room) error { return sales.CloseRoom(ctx, r.ID) })
	rooms.OnClose(func(ctx context.Context, r room.Room) error { return rains.CloseRoom(ctx, r.ID) })
	rooms.Part("products", func(ctx context.Context, r room.Room, _ int64) (any, error) { return sales.Offers(ctx, r.ID) })
	rooms.Part("online", func(ctx context.Context, r room.Room, _ int64) (any, error) { return hub.Online(ctx, r.ID) })
	rooms.Part("last", func(ctx context.Context, r room.Room, _ int64) (any, error) { return hub.Last(ctx, r.ID) })
	hub.Show("left", sales.Left)
	rooms.News("feed", feeds.Unread)
	rooms.Part("following", func(ctx context.Context, r room.Room, uid int64) (any, error) {
		if uid == 0 {
			return false, nil
		}
		return feeds.Following(ctx, uid, r.Host)
	})
	rooms.Part("pk", pks.Part)
	rooms.Part("rain", rains.Part)
	rooms.Part("balance", func(ctx context.Context, _ room.Room, uid int64) (any, error) {
		if uid == 0 {
			return nil, nil
		}
		return accounts.Wallet.Balance(ctx, uid)
	})
	accounts.Wallet.OnChange(func(_ context.Context, uid, fen int64) {
		hub.Notify(uid, "balance", map[string]int64{"fen": fen})
	})

	figures := newOperate(env, s.mux)
	figures.stock = func(ctx context.Context) (any, error) { return sales.Figures(ctx) }
	figures.sockets = func() int { return int(hub.Counts().Sockets) }
	figures.orders = sales.Orders
	s.add("operate", figures)
	s.mux.AdminLong("GET /admin/invariants", func(r *api.Request) (any, error) {
		verdicts, err := check.All(r.Context(), env)
		if err != nil {
			env.Log.Warn("invariants", "err", err) // the verdicts tell it too
		}
		return verdicts, nil
	})
	s.mux.Raw("GET /", page.Handler())
	return nil
}

// reliable announces what nobody may miss.
type reliable struct{ *im.Hub }

func (r reliable) Publish(ctx context.Context, room int64, t string, d any) error {
	return r.Hub.Publish(ctx, room, t, d, im.Reliable)
}
