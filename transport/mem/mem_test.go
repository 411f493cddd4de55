package mem_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransport(t *testing.T) { transporttest.Run(t, harness()) }

func harness() transporttest.Harness {
	return transporttest.Harness{
		Connect: func(tb testing.TB) transporttest.Pair {
			agent, gateway := connect(tb, &mem.Listener{})
			return transporttest.Pair{Dialed: agent, Accepted: gateway, Cut: agent.Cut}
		},
		MaxStreams:  1024,
		MaxBuffered: 256 << 10,
	}
}

// connect returns both sides of a connection to l, which end with the test.
func connect(tb testing.TB, l *mem.Listener) (agent, gateway *mem.Mux) {
	tb.Helper()
	dialed, err := (&mem.Dialer{Listener: l}).Dial(tb.Context(), "https://gateway.example.com")
	require.NoError(tb, err)
	accepted, err := l.Accept(tb.Context())
	require.NoError(tb, err)
	tb.Cleanup(func() {
		_ = dialed.CloseWithError(transport.NoError, "") // neither can fail
		_ = accepted.CloseWithError(transport.NoError, "")
	})
	return dialed.(*mem.Mux), accepted.(*mem.Mux)
}

func BenchmarkTransport(b *testing.B) { transporttest.Benchmark(b, harness()) }
