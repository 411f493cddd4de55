//go:build linux

package netlab

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/internal/testnet"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// relay is what the relays of both kinds have.
type relay interface {
	Addr() string
	Set(testnet.Direction, testnet.Conditions)
}

// tunnelThrough joins a gateway and an agent of this process by way of a relay.
func tunnelThrough[R relay](t *testing.T, c carrier, start func(tb testing.TB, target string, seed uint64) R) (*tunnel.Gateway, R) {
	t.Helper()
	ca := testca.New(t)
	ln, err := c.listen("127.0.0.1:0", ca.Gateway())
	require.NoError(t, err)
	r := start(t, ln.Addr().String(), 1)
	g := &tunnel.Gateway{}
	a := &tunnel.Agent{
		Gateways:   []string{"https://" + r.Addr()},
		Dialers:    []transport.Dialer{c.dialer(ca.Agent("agent-1"))},
		Policy:     policy.InsecureAllowAll(),
		BackoffMax: 100 * time.Millisecond,
	}
	require.NoError(t, a.Handle(flowService, tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
		stream, err := in.Accept(nil)
		if err != nil {
			return
		}
		f, err := readFlow(stream)
		if err != nil {
			abort(stream)
			return
		}
		if e := f.run(stream, false, new(atomic.Int64)); e.Corrupt != "" {
			t.Errorf("at the agent: %+v", e)
		}
	})))
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = g.Serve(ctx, ln) })
	tasks.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = g.Close()
		tasks.Wait()
	})
	return g, r
}

// converse runs one flow from the gateway.
func converse(t *testing.T, g *tunnel.Gateway, f flow) ending {
	ctx, cancel := context.WithTimeout(t.Context(), nodeTimeout)
	defer cancel()
	for {
		s, err := g.WaitSession(ctx, "agent-1")
		if err != nil {
			return ending{Error: err.Error()}
		}
		stream, err := s.Open(ctx, tunnel.Target{Service: flowService})
		if err == nil {
			err = f.writeTo(stream)
		}
		if err != nil { // the session was about to end
			if stream != nil {
				abort(stream)
			}
			continue
		}
		return f.run(stream, true, new(atomic.Int64))
	}
}

func requireWhole(t *testing.T, f flow, e ending) {
	t.Helper()
	require.Equal(t, ending{Sent: f.Size, Received: f.Size, Clean: true}, e)
}

func udpCarrier(t *testing.T) carrier {
	for _, c := range carriers {
		if c.udp {
			return c
		}
	}
	t.Fatal("no carrier over UDP")
	return carrier{}
}

func TestDatagramsInAnyOrderMakeWholeStreams(t *testing.T) {
	t.Parallel()
	g, r := tunnelThrough(t, udpCarrier(t), testnet.RelayUDP)
	for _, d := range []testnet.Direction{testnet.AToB, testnet.BToA} {
		r.Set(d, testnet.Conditions{Delay: 5 * time.Millisecond, Jitter: 10 * time.Millisecond, Reorder: 0.05, Loss: 0.01})
	}
	f := flow{Seed: 1, Size: 1 << 20, Chunk: 16 << 10}
	requireWhole(t, f, converse(t, g, f))
}

// A translator that forgets a connection gives the agent another address in the middle of it.
func TestAConnectionOutlivesItsAddressTranslation(t *testing.T) {
	t.Parallel()
	g, r := tunnelThrough(t, udpCarrier(t), testnet.RelayUDP)
	s, err := g.WaitSession(t.Context(), "agent-1")
	require.NoError(t, err)
	f := flow{Seed: 2, Size: 64 << 10, Chunk: 1 << 10, Pace: 10 * time.Millisecond}
	done := make(chan ending, 1)
	go func() { done <- converse(t, g, f) }()
	// The path has to be validated before it changes again (RFC 9000, section 9.3.2).
	across := flow{Seed: 3, Size: 8 << 10, Chunk: 1 << 10}
	for range 3 {
		r.Rebind(t)
		requireWhole(t, across, converse(t, g, across))
	}
	requireWhole(t, f, <-done)
	require.NoError(t, s.Context().Err(), "it is the same connection")
}

func TestAStallShorterThanTheLivenessBreaksNothing(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		var g *tunnel.Gateway
		var r relay
		if c.udp {
			g, r = tunnelThrough(t, c, testnet.RelayUDP)
		} else {
			g, r = tunnelThrough(t, c, testnet.RelayTCP)
		}
		s, err := g.WaitSession(t.Context(), "agent-1")
		require.NoError(t, err)
		f := flow{Seed: 3, Size: 256 << 10, Chunk: 4 << 10, Pace: 10 * time.Millisecond}
		done := make(chan ending, 1)
		go func() { done <- converse(t, g, f) }()
		pause(t.Context(), 200*time.Millisecond)
		for _, stalled := range []bool{true, false} {
			for _, d := range []testnet.Direction{testnet.AToB, testnet.BToA} {
				r.Set(d, testnet.Conditions{Stall: stalled})
			}
			if stalled {
				pause(t.Context(), 5*time.Second)
			}
		}
		requireWhole(t, f, <-done)
		require.NoError(t, s.Context().Err())
	})
}

// Wherever TCP is cut, in a handshake, inside a record or between two, no stream ends as if
// it were complete.
func TestACutAtAnyByteIsNoCleanEnd(t *testing.T) {
	t.Parallel()
	cuts := 24
	if full() {
		cuts = 400
	}
	for _, c := range carriers {
		if c.udp {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			g, r := tunnelThrough(t, c, testnet.RelayTCP)
			broken := 0
			for i := range cuts {
				// The handshake takes some 3 KB; a flow of 64 KiB follows.
				r.CutAfter(testnet.Direction(i%2), int64(3000+i*(70_000/cuts)))
				r.Cut()
				f := flow{Seed: uint64(i), Size: 64 << 10, Chunk: 4 << 10}
				e := converse(t, g, f)
				require.Empty(t, e.Corrupt)
				if !e.Clean {
					broken++
				}
			}
			t.Logf("%d of %d flows were cut", broken, cuts)
			require.Positive(t, broken)
		})
	}
}

// A middlebox that drops its state resets one side and forgets to tell the other.
func TestAHalfOpenConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for _, c := range carriers {
		if c.udp {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, r := tunnelThrough(t, c, testnet.RelayTCP)
			s, err := g.WaitSession(t.Context(), "agent-1")
			require.NoError(t, err)
			stream, err := s.Open(t.Context(), tunnel.Target{Service: flowService})
			require.NoError(t, err)
			defer stream.Close()
			began := time.Now()
			r.HalfOpen() // the gateway knows, the agent does not
			<-s.Context().Done()
			require.Less(t, time.Since(began), patience)
			f := flow{Seed: 4, Size: 10_000, Chunk: 1000}
			requireWhole(t, f, converse(t, g, f))
			t.Logf("the agent was back after %s", time.Since(began).Round(time.Millisecond))
		})
	}
}
