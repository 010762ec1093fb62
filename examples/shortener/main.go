// Command shortener is a link shortener in sixty lines: short links in a SQLite file,
// made over a JSON API, followed at the root.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"

	_ "modernc.org/sqlite" // registers "sqlite"

	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/shorturl"
)

// Two connections may write at the same time: an id range and a link.
const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "where to listen")
	file := flag.String("db", "links.db", "the SQLite file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	db, err := sql.Open("sqlite", "file:"+*file+pragmas)
	if err != nil {
		log.Fatal(err)
	}
	h, err := shortener(ctx, db, cmp.Or(os.Getenv("SHORTENER_KEY"), "change me"), cmp.Or(os.Getenv("SHORTENER_TOKEN"), "secret"))
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: *addr, Handler: h}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	log.Printf(`try: curl -H 'Authorization: Bearer …' -d '{"url": "https://go.dev"}' http://%s/api/links`, *addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// shortener wires ids and links in one database together; token opens the API.
func shortener(ctx context.Context, db *sql.DB, key, token string) (http.Handler, error) {
	if err := errors.Join(idgen.Migrate(ctx, db, idgen.SQLite), shorturl.Migrate(ctx, db, shorturl.SQLite)); err != nil {
		return nil, err
	}
	numbers, err1 := idgen.SQLStore(db, idgen.SQLite, idgen.Atomic)
	store, err2 := shorturl.SQLStore(db, shorturl.SQLite)
	ids, err3 := idgen.NewSegment(numbers, "link", idgen.Options{MinStep: 100})
	links, err4 := shorturl.New(shorturl.Options{IDs: ids, Store: store, Key: []byte(key),
		Authenticate: func(r *http.Request) (string, bool) { return "me", r.Header.Get("Authorization") == "Bearer "+token }})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", links.API()))
	mux.Handle("/", links.Handler())
	return mux, nil
}
