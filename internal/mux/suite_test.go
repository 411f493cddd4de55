package mux_test

import (
	"net"
	"testing"

	"github.com/outgate/outgate/internal/cork"
	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport/transporttest"
)

func TestAMuxOverAPipeKeepsThePromisesOfATransport(t *testing.T) {
	transporttest.Run(t, harness(overPipe(newIdentities(t))))
}

func TestAMuxOverTLSKeepsThePromisesOfATransport(t *testing.T) {
	transporttest.Run(t, harness(overCorkedTLS(newIdentities(t))))
}

func BenchmarkCorkedTLS(b *testing.B) {
	transporttest.Benchmark(b, harness(overCorkedTLS(newIdentities(b))))
}

func BenchmarkTLS(b *testing.B) { transporttest.Benchmark(b, harness(overTLS(newIdentities(b)))) }

func harness(connect func(testing.TB) carrier) transporttest.Harness {
	const maxStreams = 1024
	return transporttest.Harness{
		MaxStreams:  maxStreams,
		MaxBuffered: 1 << 20,
		Connect: func(tb testing.TB) transporttest.Pair {
			tb.Helper()
			c := connect(tb)
			agent, gateway := pair(tb, c, mux.Config{MaxStreams: maxStreams})
			return transporttest.Pair{Dialed: agent, Accepted: gateway, Cut: c.cut}
		},
	}
}

func overTLS(i identities) func(testing.TB) carrier {
	return func(tb testing.TB) carrier {
		tb.Helper()
		dialed, accepted := sockets(tb)
		return i.secure(tb, dialed, accepted)
	}
}

// overCorkedTLS is how the transports do it.
func overCorkedTLS(i identities) func(testing.TB) carrier {
	return func(tb testing.TB) carrier {
		tb.Helper()
		dialed, accepted := sockets(tb)
		return i.secure(tb, cork.New(dialed), cork.New(accepted))
	}
}

// overPipe returns pipes without TLS: what it would say comes from elsewhere.
func overPipe(i identities) func(testing.TB) carrier {
	var secured carrier
	return func(tb testing.TB) carrier {
		tb.Helper()
		if secured.agent == nil {
			secured = overTLS(i)(tb)
			secured.cut()
		}
		c := secured
		c.agent, c.gateway = net.Pipe()
		c.lowest = []net.Conn{c.agent, c.gateway}
		return c
	}
}
