module github.com/spillway-go/spillway/bench

go 1.26.0

replace github.com/spillway-go/spillway => ../

require (
	github.com/bsm/redislock v0.9.4
	github.com/buraksezer/consistent v0.10.0
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/dgryski/go-jump v0.0.0-20170409065014-e1f439676b57
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f
	github.com/go-redsync/redsync/v4 v4.18.0
	github.com/kkdai/maglev v0.2.0
	github.com/redis/go-redis/v9 v9.23.0
	github.com/redis/rueidis v1.0.79
	github.com/serialx/hashring v0.0.0-20200727003509-22c0c7ab6b1b
	github.com/spillway-go/spillway v0.0.0-00010101000000-000000000000
	github.com/zeromicro/go-zero v1.10.3
)

require (
	github.com/alicebob/miniredis/v2 v2.40.0 // indirect
	github.com/dchest/siphash v1.2.2 // indirect
	github.com/spaolacci/murmur3 v1.1.0 // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
)
