package redistest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports lie below 32768, where Linux begins to take the local ports of outgoing
// connections: with the cluster bus, at port+10000, below as well, no client
// connection of anybody can take a port while its server is down for a Restart.
const (
	minPort   = 11000
	maxPort   = 22000
	busOffset = 10000
)

// A port is a TCP port that no other harness on this machine will use until
// it is released, also while its server is down. The claim is a bound UDP
// socket of the same number: Redis does not use UDP, and the kernel drops the
// claim when this process ends.
type port struct {
	n     int
	claim net.PacketConn
}

func claimPort() (port, error) {
	for range 1000 {
		n := minPort + rand.IntN(maxPort-minPort)
		claim, err := net.ListenPacket("udp4", local(n))
		if err != nil {
			continue
		}
		if free(n) && free(n+busOffset) {
			return port{n, claim}, nil
		}
		_ = claim.Close()
	}
	return port{}, errors.New("redistest: no free port found")
}

func (p port) release() { _ = p.claim.Close() }

func free(n int) bool {
	l, err := net.Listen("tcp4", local(n))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
