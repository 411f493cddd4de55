package websocket_test

import (
	"context"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// jam makes the carrier of m take no more data: the attacker grants a window
// without end and does not read from its socket.
func jam(t *testing.T, attacker raw, m transport.Mux, ours uint32) (transport.Stream, <-chan error) {
	t.Helper()
	s, err := m.OpenStream(soon(t))
	require.NoError(t, err)
	_, _, err = attacker.ws.Read(soon(t)) // the peer's grant
	require.NoError(t, err)
	_, err = s.Write([]byte("x"))
	require.NoError(t, err)
	_, _, err = attacker.ws.Read(soon(t)) // the stream exists
	require.NoError(t, err)
	attacker.send(update(ours, 0, 1<<30))
	write := make(chan error, 1)
	go func() {
		_, err := s.Write(make([]byte, 256<<20))
		write <- err
	}()
	return s, write
}

func TestAConnectionThatTakesNoDataEndsWithTimeout(t *testing.T) {
	bothWays(t, websocket.Config{WriteTimeout: 300 * time.Millisecond}, func(t *testing.T, attacker raw, m transport.Mux, _, ours uint32) {
		_, write := jam(t, attacker, m, ours)
		cause := causeOf(t, m)
		require.Equal(t, transport.Timeout, cause.Code)
		require.True(t, cause.Remote)
		require.True(t, cause.Timeout())
		require.ErrorIs(t, eventually(t, write, "the Write"), transport.Timeout)
	})
}

func TestNothingWaitsForAConnectionThatTakesNoData(t *testing.T) {
	t.Parallel()
	bothWays(t, websocket.Config{WriteTimeout: time.Minute}, func(t *testing.T, attacker raw, m transport.Mux, first, ours uint32) {
		jammed, write := jam(t, attacker, m, ours)
		// The carrier is stuck when a second stream cannot write either.
		other, err := m.OpenStream(soon(t))
		require.NoError(t, err)
		var n int
		for err == nil {
			require.NoError(t, other.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
			n, err = other.Write(make([]byte, 1000))
		}
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Less(t, n, 1000)

		start := time.Now()
		third, err := m.OpenStream(soon(t))
		require.NoError(t, err)
		require.NoError(t, third.CloseWrite())
		require.NoError(t, third.Close())
		require.NoError(t, other.Reset(transport.Canceled))
		attacker.send(frame(syn, first, nil), frame(psh, first, []byte("in")), record(endRecord, first, 2))
		got, err := io.ReadAll(accepted(t, m))
		require.NoError(t, err, "the other direction works")
		require.Equal(t, "in", string(got))
		require.NoError(t, jammed.SetWriteDeadline(time.Now()))
		require.ErrorIs(t, eventually(t, write, "the Write whose deadline was set later"), os.ErrDeadlineExceeded)
		require.NoError(t, jammed.Close())
		require.Less(t, time.Since(start), 2*time.Second)

		start = time.Now()
		require.NoError(t, m.CloseWithError(transport.Draining, "bye"))
		require.Less(t, time.Since(start), 2500*time.Millisecond)
		require.Equal(t, transport.Draining, causeOf(t, m).Code)
	})
}

func TestStreamsThatNobodyAcceptsHoldBackTheOpener(t *testing.T) {
	overEach(t, func(t *testing.T, over websocket.Multiplexer) {
		for _, limit := range []int{1, 2, 3, 10} {
			agent, gateway := pair(t, websocket.Config{MaxStreams: limit, Multiplexer: over})
			for _, way := range [][2]transport.Mux{{agent, gateway}, {gateway, agent}} {
				var opened []transport.Stream
				for range limit {
					s, err := way[0].OpenStream(soon(t))
					require.NoError(t, err)
					opened = append(opened, s)
				}
				for _, s := range opened {
					require.NoError(t, s.Reset(transport.Canceled)) // a reset alone frees no slot: somebody has to handle it
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				_, err := way[0].OpenStream(ctx)
				cancel()
				require.ErrorIs(t, err, context.DeadlineExceeded)
				for range limit {
					require.NoError(t, accepted(t, way[1]).Close())
				}
				for range 5 * limit { // far more than the limit, one after the other
					o, a := open(t, way[0], way[1])
					require.NoError(t, a.Close())
					require.NoError(t, o.Close())
				}
			}
		}
	})
}

func TestATransferOverALongWayUsesALargerWindow(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, over websocket.Multiplexer) {
		ca := testca.New(t)
		const delay, size = 100 * time.Millisecond, 12 << 20
		agent, gateway := connect(t, listen(t, ca.Gateway(), websocket.Config{Multiplexer: over}), &websocket.Dialer{
			TLSClientConfig: ca.Agent("agent-1"),
			NetDial:         farAway(t, delay),
		})
		for _, way := range [][2]transport.Mux{{agent, gateway}, {gateway, agent}} {
			opened, accepted := open(t, way[0], way[1])
			go func() {
				_, _ = opened.Write(make([]byte, size))
				_ = opened.Close()
			}()
			start := time.Now()
			n, err := io.Copy(io.Discard, accepted)
			require.NoError(t, err)
			require.EqualValues(t, size, n)
			// With the first window of 256 KiB it takes 48 round trips and more.
			require.Less(t, time.Since(start), 48*2*delay)
		}
	})
}

func TestAThousandIdleStreamsAndALargeTransfer(t *testing.T) {
	overEach(t, func(t *testing.T, over websocket.Multiplexer) {
		agent, gateway := pair(t, websocket.Config{Multiplexer: over})
		for range 1000 {
			open(t, agent, gateway)
		}
		opened, accepted := open(t, gateway, agent)
		const size = 32 << 20
		write := make(chan error, 1)
		go func() {
			_, err := opened.Write(make([]byte, size))
			if err == nil {
				err = opened.Close()
			}
			write <- err
		}()
		n, err := io.Copy(io.Discard, accepted)
		require.NoError(t, err)
		require.EqualValues(t, size, n)
		require.NoError(t, eventually(t, write, "the Write"))
	})
}

func TestConfigHasDefaultsForNonsense(t *testing.T) {
	overEach(t, func(t *testing.T, over websocket.Multiplexer) {
		ca := testca.New(t)
		cfg := websocket.Config{
			MaxStreams: math.MinInt, MaxWindow: 1, WindowBudget: -1, WriteTimeout: -1, HandshakeTimeout: -1, Backlog: -1, Multiplexer: over,
		}
		agent, gateway := connect(t, listen(t, ca.Gateway(), cfg), &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: cfg})
		carries(t, agent, gateway)
	})
}

// stuff writes until the peer's window is full and returns how much that took.
func stuff(t *testing.T, s transport.Stream) int {
	t.Helper()
	total := 0
	for {
		require.NoError(t, s.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := s.Write(make([]byte, 32<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		if total += n; n == 0 && total > 0 {
			return total
		}
	}
}
