package transporttest_test

import (
	"testing"

	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/transport/transporttest"
)

// A transport of your own runs the suite in one of its tests.
func ExampleRun() {
	connect := func(tb testing.TB) transporttest.Pair {
		listener := &mem.Listener{} // yours, on a real socket
		dialed, err := (&mem.Dialer{Listener: listener}).Dial(tb.Context(), "https://127.0.0.1")
		if err != nil {
			tb.Fatal(err)
		}
		accepted, err := listener.Accept(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		return transporttest.Pair{Dialed: dialed, Accepted: accepted, Cut: listener.Cut}
	}

	_ = func(t *testing.T) { // func TestTransport
		transporttest.Run(t, transporttest.Harness{
			Connect:    connect,
			MaxStreams: 1024,
			Skip:       transporttest.Skip{
				// Reset: "the carrier has no codes", say. Better none.
			},
		})
	}
}
