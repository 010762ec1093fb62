package hotkey_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/hashring/hotkey"
)

// A star's room is asked for by everybody, more than the one server that has its
// key can answer. Found hot, it is read from six copies in six Cluster slots.
func Example() {
	server, err := miniredis.Run()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	rdb := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{server.Addr()}}) // or a Cluster's
	defer rdb.Close()
	detector, err := hotkey.NewDetector(hotkey.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	copies, err := hotkey.NewCopies(hotkey.CopiesOptions{
		Copies: 6,
		TTL:    5 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	rooms := &rooms{rdb, detector, copies}
	ctx := context.Background()

	if err := rooms.write(ctx, "room:star", 1, "opens soon"); err != nil {
		fmt.Println(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !detector.Hot("room:star") && time.Now().Before(deadline) { // everybody comes
		detector.Observe("room:star")
	}
	if err := rooms.write(ctx, "room:star", 2, "live"); err != nil {
		fmt.Println(err)
	}
	text, err := rooms.read(ctx, "room:star")
	fmt.Println(text, err)
	fmt.Println("keys:", len(server.Keys()))

	// An older write that arrives late, on every copy: who has seen the newer one
	// reads the original.
	for _, name := range copies.WriteKeys("room:star", nil) {
		if err := rdb.Set(ctx, name, encode(1, "opens soon"), copies.TTL()).Err(); err != nil {
			fmt.Println(err)
		}
	}
	text, err = rooms.read(ctx, "room:star")
	fmt.Println(text, err)
	top := detector.Top(1)[0]
	fmt.Println(top.Name, "hot:", top.Hot, "of all:", math.Round(top.Share))
	fmt.Println("hot keys:", detector.Stats().Hot)
	// Output:
	// live <nil>
	// keys: 7
	// live <nil>
	// room:star hot: true of all: 1
	// hot keys: 1
}

// rooms are read by many and written by few. (Stock, locks and counters are not
// like that: no copies for them.)
type rooms struct {
	rdb      redis.UniversalClient
	detector *hotkey.Detector
	copies   *hotkey.Copies
}

func (r *rooms) write(ctx context.Context, key string, version int64, text string) error {
	if err := r.rdb.Set(ctx, key, encode(version, text), 0).Err(); err != nil {
		return err
	}
	if !r.detector.Hot(key) {
		return nil
	}
	pipe := r.rdb.Pipeline() // a copy that cannot be written expires soon
	for _, name := range r.copies.WriteKeys(key, nil) {
		pipe.Set(ctx, name, encode(version, text), r.copies.TTL())
	}
	_, err := pipe.Exec(ctx)
	return err
}

func (r *rooms) read(ctx context.Context, key string) (string, error) {
	r.detector.Observe(key)
	if r.detector.Hot(key) {
		name := r.copies.ReadKey(key)
		if text, ok := r.decode(key, r.rdb.Get(ctx, name).Val()); ok {
			return text, nil
		}
	}
	original, err := r.rdb.Get(ctx, key).Result()
	if err != nil {
		return "", err
	}
	text, _ := r.decode(key, original)
	return text, nil
}

func encode(version int64, text string) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(version))) + text
}

func (r *rooms) decode(key, value string) (text string, ok bool) {
	if len(value) < 8 {
		return "", false
	}
	version := int64(binary.BigEndian.Uint64([]byte(value[:8])))
	return value[8:], r.copies.Accept(key, version)
}

// A viewer who always reads the same copy never sees it change back and forth.
func ExampleCopies_StickyKey() {
	copies, err := hotkey.NewCopies(hotkey.CopiesOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(copies.StickyKey("room:star", "viewer-7"))
	fmt.Println(copies.StickyKey("room:star", "viewer-7"))
	fmt.Println(copies.StickyKey("room:star", "viewer-8"))
	_, err = hotkey.NewCopies(hotkey.CopiesOptions{Copies: 1})
	fmt.Println(errors.Is(err, hotkey.ErrInvalid), err)
	// Output:
	// spillway:hotkey1:{room:star#5}:copy
	// spillway:hotkey1:{room:star#5}:copy
	// spillway:hotkey1:{room:star#3}:copy
	// true hotkey: invalid argument: CopiesOptions.Copies 1, want 2 to 64
}
