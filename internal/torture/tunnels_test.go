package torture

import (
	"context"
	"crypto/tls"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// Services that both sides of a tunnel offer to the tests.
const (
	echoService  = "torture.example/echo"  // sends back what comes
	floodService = "torture.example/flood" // sends without end
	sinkService  = "torture.example/sink"  // never reads
)

// offer registers the services.
func offer(handle func(string, tunnel.Handler) error) error {
	for name, serve := range map[string]func(context.Context, io.ReadWriter){
		echoService: func(_ context.Context, s io.ReadWriter) { _, _ = io.Copy(s, s) },
		floodService: func(_ context.Context, s io.ReadWriter) {
			flood(s)
		},
		sinkService: func(ctx context.Context, _ io.ReadWriter) { <-ctx.Done() },
	} {
		err := handle(name, tunnel.HandlerFunc(func(ctx context.Context, in *tunnel.Incoming) {
			stream, err := in.Accept(nil)
			if err != nil {
				return
			}
			defer stream.Close()
			serve(ctx, stream)
		}))
		if err != nil {
			return err
		}
	}
	return nil
}

// flooded counts the bytes of all calls of flood in this process.
var flooded atomic.Int64

// flood writes until the stream ends.
func flood(to io.Writer) {
	w := &writer{Writer: to}
	for {
		const piece = 4 << 10
		if w.write(piece, piece) != nil {
			return
		}
		flooded.Add(piece)
	}
}

// serveTunnels runs a gateway with the services until the end of the test.
func serveTunnels(tb testing.TB, c carrier, config *tls.Config) (g *tunnel.Gateway, url string) {
	tb.Helper()
	l, err := c.listen(config)
	require.NoError(tb, err)
	g = &tunnel.Gateway{MaxOpensPerSecond: -1}
	require.NoError(tb, offer(g.Handle))
	served := make(chan error, 1)
	go func() { served <- g.Serve(context.Background(), l) }()
	tb.Cleanup(func() {
		_ = g.Close()
		<-served
	})
	return g, urlOf(l.Addr())
}

// runAgent runs an agent with the services until stop is called, which is after the
// test at the latest. It is connected when runAgent returns.
func runAgent(tb testing.TB, c carrier, config *tls.Config, url string) (a *tunnel.Agent, stop func()) {
	tb.Helper()
	a = &tunnel.Agent{Gateways: []string{url}, Dialers: []transport.Dialer{c.dialer(config)}, Policy: policy.InsecureAllowAll(), MaxOpensPerSecond: -1}
	require.NoError(tb, offer(a.Handle))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = a.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ran
	}
	tb.Cleanup(stop)
	require.NoError(tb, a.WaitConnected(soon(tb)))
	return a, stop
}

// oneTunnel is a gateway with one agent.
func oneTunnel(tb testing.TB, c carrier) (*tunnel.Gateway, *tunnel.Agent) {
	tb.Helper()
	ids := newIdentities(tb)
	g, url := serveTunnels(tb, c, ids.gateway)
	a, _ := runAgent(tb, c, ids.agent, url)
	return g, a
}
