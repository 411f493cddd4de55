package tunnel_test

import (
	"context"
	"crypto/tls"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

const (
	revokedStreams = 100
	sourceService  = "test.example/source"
)

// fleet is a gateway with an authority of its own.
type fleet struct {
	authority *pki.Authority
	gateway   *tunnel.Gateway
	url       string
	dialer    func(*tls.Config) transport.Dialer
}

func newFleet(tb testing.TB, carrier string) *fleet {
	tb.Helper()
	signer, cert, err := pki.NewCA("test")
	require.NoError(tb, err)
	store := new(pki.MemoryStore)
	follower := &pki.Follower{Store: store}
	f := &fleet{authority: &pki.Authority{Signer: signer, Certificate: cert, Store: store, Follower: follower}}
	f.gateway = &tunnel.Gateway{Identify: f.authority.Identify, Verify: follower.Check}
	follower.Changed = f.gateway.Reverify
	config, err := f.authority.ServerTLS(tls.RequireAndVerifyClientCert, "127.0.0.1")
	require.NoError(tb, err)
	var ln transport.Listener
	switch carrier {
	case "websocket":
		ln, err = websocket.Listen("127.0.0.1:0", config, websocket.Config{})
		f.dialer = func(c *tls.Config) transport.Dialer { return &websocket.Dialer{TLSClientConfig: c} }
	case "quic":
		ln, err = quic.Listen("127.0.0.1:0", config, quic.ListenConfig{})
		f.dialer = func(c *tls.Config) transport.Dialer { return &quic.Dialer{TLSClientConfig: c} }
	}
	require.NoError(tb, err)
	f.url = "https://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = follower.Run(ctx) })
	running.Go(func() { _ = f.gateway.Serve(ctx, ln) })
	tb.Cleanup(func() {
		_ = f.gateway.Close()
		cancel()
		running.Wait()
	})
	return f
}

// revoke admits an agent, lets it send on many streams, revokes it, and returns how
// long after that the last byte arrived.
func (f *fleet) revoke(tb testing.TB, name string) time.Duration {
	tb.Helper()
	token, err := f.authority.Grant(tb.Context(), pki.Grant{Agent: name})
	require.NoError(tb, err)
	identity, err := pki.Enroll(tb.Context(), new(pki.MemoryStorage), f.authority, pki.Registration{Token: token})
	require.NoError(tb, err)
	dialer := f.dialer(identity.ClientTLS())
	agent := &tunnel.Agent{Gateways: []string{f.url}, Dialers: []transport.Dialer{dialer}, Policy: policy.InsecureAllowAll()}
	require.NoError(tb, agent.Handle(sourceService, tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
		stream, err := in.Accept(nil)
		if err != nil {
			return
		}
		defer stream.Close()
		for data := make([]byte, 1024); err == nil; {
			_, err = stream.Write(data)
			time.Sleep(time.Millisecond) // busy, and not more than the machine can carry
		}
	})))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = agent.Run(ctx) })
	defer func() {
		cancel()
		running.Wait()
		if c, ok := dialer.(io.Closer); ok {
			_ = c.Close()
		}
	}()
	s, err := f.gateway.WaitSession(tb.Context(), name)
	require.NoError(tb, err)

	var flowing atomic.Int64
	arrivals := make([]time.Time, revokedStreams) // of the last byte of each
	var reading sync.WaitGroup
	for i := range revokedStreams {
		stream, err := s.Open(tb.Context(), tunnel.Target{Service: sourceService})
		require.NoError(tb, err)
		reading.Go(func() {
			defer stream.Close()
			for n, buf := 0, make([]byte, 4096); ; n++ {
				if _, err := stream.Read(buf); err != nil {
					if err == io.EOF {
						tb.Error("a cut stream looks complete")
					}
					return
				}
				if n == 0 {
					flowing.Add(1)
				}
				arrivals[i] = time.Now()
			}
		})
	}
	require.Eventually(tb, func() bool { return flowing.Load() == revokedStreams }, 30*time.Second, time.Millisecond)

	began := time.Now()
	_, err = f.authority.Revoke(tb.Context(), pki.Revocation{Agent: name, Reason: "stolen"})
	require.NoError(tb, err)
	reading.Wait()
	select {
	case <-s.Context().Done():
	case <-time.After(30 * time.Second):
		tb.Fatal("the session goes on")
	}
	require.ErrorIs(tb, context.Cause(s.Context()), transport.Revoked)
	_, err = f.gateway.Session(name)
	require.ErrorIs(tb, err, tunnel.ErrNotConnected)
	return max(0, slices.MaxFunc(arrivals, time.Time.Compare).Sub(began))
}

func TestARevokedAgentIsCutOff(t *testing.T) {
	for _, carrier := range []string{"websocket", "quic"} {
		t.Run(carrier, func(t *testing.T) {
			f := newFleet(t, carrier)
			for _, name := range []string{"one", "two"} {
				require.Less(t, f.revoke(t, name), 10*time.Second, "against a hang; see the benchmark for the figure")
			}
		})
	}
}

// BenchmarkRevocation measures the time from Revoke to the last byte of 100 streams.
func BenchmarkRevocation(b *testing.B) {
	for _, carrier := range []string{"websocket", "quic"} {
		b.Run(carrier, func(b *testing.B) {
			f := newFleet(b, carrier)
			var took []time.Duration
			for b.Loop() {
				took = append(took, f.revoke(b, "edge"))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
		})
	}
}
