package sale

import (
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// Routes registers the calls of this package.
func (s *Sale) Routes(m *api.Mux) {
	m.Admin("POST /admin/products", func(r *api.Request) (any, error) {
		var p Product
		if err := r.Decode(&p); err != nil {
			return nil, err
		}
		return s.Register(r.Context(), p)
	})
	m.Admin("PUT /admin/products/{sku}", func(r *api.Request) (any, error) {
		var p Product
		if err := r.Decode(&p); err != nil {
			return nil, err
		}
		if p.SKU != r.PathValue("sku") {
			return nil, api.Bad("sku: %q in the path, %q in the body", r.PathValue("sku"), p.SKU)
		}
		return s.Update(r.Context(), p)
	})
	m.Admin("PUT /admin/warehouse/{sku}", func(r *api.Request) (any, error) {
		var in struct {
			Units *int64 `json:"units"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.Units == nil {
			return nil, api.Bad("units: how many are there?")
		}
		return in, table{s.env}.set(r.Context(), r.PathValue("sku"), *in.Units)
	})
	m.User("GET /products", func(r *api.Request) (any, error) {
		products, err := s.Registered(r.Context(), r.UID)
		return map[string]any{"products": products}, err
	})
	m.Public("GET /rooms/{id}/products", inID(func(r *api.Request, room int64) (any, error) {
		offers, err := s.Offers(r.Context(), room)
		return map[string]any{"products": offers}, err
	}))
	m.User("POST /rooms/{id}/products", inID(func(r *api.Request, room int64) (any, error) {
		var in struct {
			SKU string `json:"sku"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if err := s.Show(r.Context(), r.UID, room, in.SKU); err != nil {
			return nil, err
		}
		offers, err := s.Offers(r.Context(), room)
		return map[string]any{"products": offers}, err
	}))
	m.User("GET /rooms/{id}/cart", inID(func(r *api.Request, room int64) (any, error) {
		lines, err := s.Cart(r.Context(), r.UID, room)
		return map[string]any{"items": lines}, err
	}))
	m.User("PUT /rooms/{id}/cart", inID(func(r *api.Request, room int64) (any, error) {
		var in struct {
			SKU string `json:"sku"`
			Qty *int64 `json:"qty"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.Qty == nil {
			return nil, api.Bad("qty: how many? 0 takes it out")
		}
		lines, err := s.PutCart(r.Context(), r.UID, room, Line{in.SKU, *in.Qty})
		return map[string]any{"items": lines}, err
	}))
	m.User("POST /orders/token", func(r *api.Request) (any, error) {
		id, err := s.Token(r.Context(), r.UID)
		return map[string]int64{"order_id": id}, err
	})
	m.User("POST /orders", func(r *api.Request) (any, error) {
		var in struct {
			OrderID int64  `json:"order_id"`
			Room    int64  `json:"room"`
			Items   []Line `json:"items"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		return s.Place(r.Context(), r.UID, in.OrderID, in.Room, in.Items)
	})
	m.User("POST /orders/{id}/pay", inID(func(r *api.Request, id int64) (any, error) {
		var in struct {
			Coupon string `json:"coupon"`
		}
		if r.ContentLength != 0 { // who has no coupon need not say so
			if err := r.Decode(&in); err != nil {
				return nil, err
			}
		}
		if in.Coupon == "" {
			return s.Pay(r.Context(), r.UID, id)
		}
		return s.PayWith(r.Context(), r.UID, id, in.Coupon)
	}))
	m.User("GET /coupons", func(r *api.Request) (any, error) { return s.Coupons(r.Context(), r.UID) })
	m.User("GET /orders/{id}", inID(func(r *api.Request, id int64) (any, error) {
		return s.Order(r.Context(), r.UID, id)
	}))
	m.User("GET /orders", func(r *api.Request) (any, error) {
		orders, err := s.History(r.Context(), r.UID)
		return map[string]any{"orders": orders}, err
	})
}

// inID takes the id out of the path.
func inID(h func(*api.Request, int64) (any, error)) api.Handler {
	return func(r *api.Request) (any, error) {
		id, err := r.ID("id")
		if err != nil {
			return nil, err
		}
		return h(r, id)
	}
}
