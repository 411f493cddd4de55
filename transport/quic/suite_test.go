package quic_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/transporttest"
)

func TestQUICKeepsThePromisesOfATransport(t *testing.T) {
	t.Parallel() // it waits a lot
	transporttest.Run(t, harness(t))
}

func BenchmarkTransport(b *testing.B) { transporttest.Benchmark(b, harness(b)) }

func harness(tb testing.TB) transporttest.Harness {
	ca := testca.New(tb)
	const maxStreams = 1024
	return transporttest.Harness{
		MaxStreams:  maxStreams,
		MaxBuffered: 2 << 20,
		MinBuffered: 16 << 10,
		Connect: func(tb testing.TB) transporttest.Pair {
			tb.Helper()
			limits := quic.Config{MaxStreams: maxStreams, IdleTimeout: 5 * time.Second}

			gatewaySocket := socket(tb)
			l, err := quic.ListenPacket(gatewaySocket, ca.Gateway(), quic.ListenConfig{Config: limits})
			require.NoError(tb, err)
			tb.Cleanup(func() { _ = l.Close() })

			agentSocket := socket(tb)
			d := &quic.Dialer{
				TLSClientConfig: ca.Agent("agent-1"),
				Config:          limits,
				ListenPacket: func(context.Context, string, string) (net.PacketConn, error) {
					return agentSocket, nil
				},
			}
			agent, gateway := connect(tb, l, d)
			return transporttest.Pair{
				Dialed:   agent,
				Accepted: gateway,
				Cut: func() {
					_ = agentSocket.Close()
					_ = gatewaySocket.Close()
				},
			}
		},
	}
}

func socket(tb testing.TB) *net.UDPConn {
	tb.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(tb, err)
	return c
}
