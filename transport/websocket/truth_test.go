package websocket_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// accepted is the stream that the attacker opened.
func accepted(tb testing.TB, m transport.Mux) transport.Stream {
	tb.Helper()
	s, err := m.AcceptStream(soon(tb))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAnEndOfTheConnectionIsNeverTheEndOfAStream(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(raw)
		want transport.CloseError
	}{
		{
			"a graceful close", func(r raw) { _ = r.ws.Close(ws.StatusNormalClosure, "") },
			transport.CloseError{Code: transport.ConnectionLost, Reason: "WebSocket closed with status 1000 ", Remote: true},
		},
		{
			"a proxy that goes away", func(r raw) { _ = r.ws.Close(ws.StatusGoingAway, "deploying") },
			transport.CloseError{Code: transport.ConnectionLost, Reason: "WebSocket closed with status 1001 deploying", Remote: true},
		},
		{
			"a close without status", func(r raw) { _ = r.ws.Close(ws.StatusNoStatusRcvd, "") },
			transport.CloseError{Code: transport.ConnectionLost, Reason: "WebSocket closed with status 1005 ", Remote: true},
		},
		{
			"a status of another application", func(r raw) { _ = r.ws.Close(3999, "x") },
			transport.CloseError{Code: transport.ConnectionLost, Reason: "WebSocket closed with status 3999 x", Remote: true},
		},
		{
			"TLS and TCP end without a close frame", func(r raw) { _ = r.ws.CloseNow() },
			transport.CloseError{Code: transport.ConnectionLost, Remote: true},
		},
		{
			"the peer accuses this side", func(r raw) { _ = r.ws.Close(ws.StatusMessageTooBig, "big") },
			transport.CloseError{Code: transport.Protocol, Reason: "WebSocket closed with status 1009 big", Remote: true},
		},
		{
			"a code", func(r raw) { _ = r.ws.Close(4000+ws.StatusCode(transport.Revoked), "your key\x00 is lost") },
			transport.CloseError{Code: transport.Revoked, Reason: "your key  is lost", Remote: true},
		},
		{
			"the code 0", func(r raw) { _ = r.ws.Close(4000, "") },
			transport.CloseError{Code: transport.NoError, Remote: true},
		},
		{
			"a code beyond the range of close frames", func(r raw) { _ = r.ws.Close(4999, "4294967295: so: long") },
			transport.CloseError{Code: 4294967295, Reason: "so: long", Remote: true},
		},
		{
			"such a code left out", func(r raw) { _ = r.ws.Close(4999, "so long") },
			transport.CloseError{Code: transport.Protocol, Reason: "a close frame without its code"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
				attacker.send(frame(syn, first, nil), frame(psh, first, []byte("half of it")))
				s := accepted(t, m)
				waiting, err := m.OpenStream(soon(t))
				require.NoError(t, err)
				t.Cleanup(func() { _ = waiting.Close() })

				c.end(attacker)
				require.Equal(t, c.want, *causeOf(t, m))
				got, err := io.ReadAll(s)
				require.Equal(t, "half of it", string(got), "what had arrived comes first")
				var cause *transport.CloseError
				require.ErrorAs(t, err, &cause)
				require.Equal(t, c.want, *cause)
				_, err = waiting.Read(make([]byte, 1))
				require.ErrorIs(t, err, c.want.Code)
				_, err = waiting.Write(make([]byte, 1))
				require.ErrorIs(t, err, c.want.Code)
			})
		})
	}
}

// A connection of the caller's own may fail in words that nobody knows.
func TestAnyErrorOfTheNetworkIsALostConnection(t *testing.T) {
	overEach(t, func(t *testing.T, over websocket.Multiplexer) {
		ca := testca.New(t)
		broken := make(chan error, 1)
		agent, _ := connect(t, listen(t, ca.Gateway(), websocket.Config{Multiplexer: over}), &websocket.Dialer{
			TLSClientConfig: ca.Agent("agent-1"),
			NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return breakable{conn, broken}, err
			},
		})
		broken <- errors.New("the modem was unplugged")
		require.Equal(t, transport.CloseError{Code: transport.ConnectionLost, Reason: "the modem was unplugged", Remote: true}, *causeOf(t, agent))
	})
}

// breakable is a connection whose Read fails when somebody says so.
type breakable struct {
	net.Conn
	broken chan error
}

func (b breakable) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	read := make(chan result, 1)
	go func() { n, err := b.Conn.Read(p); read <- result{n, err} }()
	select {
	case r := <-read:
		return r.n, r.err
	case err := <-b.broken:
		_ = b.Conn.Close()
		<-read
		return 0, err
	}
}

func TestAStreamThatWasCompleteStaysCompleteAfterTheConnection(t *testing.T) {
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
		attacker.send(frame(syn, first, nil), frame(psh, first, []byte("all of it")), record(endRecord, first, 9))
		s := accepted(t, m)
		_ = attacker.ws.CloseNow()
		causeOf(t, m)
		got, err := io.ReadAll(s)
		require.NoError(t, err)
		require.Equal(t, "all of it", string(got))
		_, err = s.Write(make([]byte, 1))
		require.ErrorIs(t, err, transport.ConnectionLost)
	})
}

func TestAStreamThatIsForgottenWithoutItsEndIsTruncated(t *testing.T) {
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
		attacker.send(frame(syn, first, nil), frame(psh, first, []byte("half of it")), frame(fin, first, nil))
		s := accepted(t, m)
		got, err := io.ReadAll(s)
		require.Equal(t, "half of it", string(got))
		require.Equal(t, &transport.StreamError{Code: transport.Truncated, Remote: true}, err)
		_, err = s.Write(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Canceled, Remote: true}, err)
		require.NoError(t, m.Context().Err(), "the connection lives on")
	})
}

func TestAnEndWithAnotherCountBreaksTheProtocol(t *testing.T) {
	for name, frames := range map[string]func(id uint32) []byte{
		"more than arrived": func(id uint32) []byte { return record(endRecord, id, 5) },
		"less than arrived": func(id uint32) []byte { return record(endRecord, id, 3) },
		"twice":             func(id uint32) []byte { return join(record(endRecord, id, 4), record(endRecord, id, 4)) },
		"and more data":     func(id uint32) []byte { return join(record(endRecord, id, 4), frame(psh, id, []byte("!"))) },
		"and more data, FIN": func(id uint32) []byte {
			return join(record(endRecord, id, 4), frame(fin, id, nil), frame(psh, id, []byte("!")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
				attacker.drain()
				attacker.send(frame(syn, first, nil), frame(psh, first, []byte("data")))
				accepted(t, m)
				attacker.send(frames(first))
				require.Equal(t, transport.Protocol, causeOf(t, m).Code)
			})
		})
	}
}

func TestResetAndStopArriveWithTheirCodes(t *testing.T) {
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, ours uint32) {
		attacker.send(frame(syn, first, nil), record(resetRecord, first, uint64(transport.Denied)))
		s := accepted(t, m)
		_, err := s.Read(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Denied, Remote: true}, err)

		s, err = m.OpenStream(soon(t))
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		_, err = s.Write(make([]byte, 10))
		require.NoError(t, err)
		_, _, err = attacker.ws.Read(soon(t)) // up to here the stream may be unknown to it
		require.NoError(t, err)
		attacker.send(record(stopRecord, ours, uint64(transport.Overloaded)), frame(psh, ours, []byte("bye")), record(endRecord, ours, 3))
		got, err := io.ReadAll(s)
		require.NoError(t, err, "a stop ends the other direction only")
		require.Equal(t, "bye", string(got))
		_, err = s.Write(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Overloaded, Remote: true}, err)
	})
}

func TestTheCloseFrameSaysWhy(t *testing.T) {
	for _, c := range []struct {
		code   transport.Code
		reason string
		want   ws.CloseError
	}{
		{transport.Draining, "maintenance", ws.CloseError{Code: 4011, Reason: "maintenance"}},
		{998, "", ws.CloseError{Code: 4998}},
		{999, "x", ws.CloseError{Code: 4999, Reason: "999: x"}},
		{transport.Internal, "bad \xff\xfe and \n bell\a", ws.CloseError{Code: 4001, Reason: "bad    and   bell "}},
	} {
		bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, _, _ uint32) {
			end := attacker.drain()
			require.NoError(t, m.CloseWithError(c.code, c.reason))
			var got ws.CloseError
			require.ErrorAs(t, eventually(t, end, "the close frame"), &got)
			require.Equal(t, c.want, got)
			require.False(t, causeOf(t, m).Remote)
		})
	}
}

func TestWhatWasWrittenBeforeCloseWithErrorArrives(t *testing.T) {
	overEach(t, func(t *testing.T, over websocket.Multiplexer) {
		agent, gateway := pair(t, websocket.Config{Multiplexer: over})
		opened, accepted := open(t, agent, gateway)
		_, err := opened.Write(make([]byte, 200_000))
		require.NoError(t, err)
		require.NoError(t, opened.CloseWrite())
		require.NoError(t, agent.CloseWithError(transport.Draining, ""))
		got, err := io.ReadAll(accepted)
		require.NoError(t, err)
		require.Len(t, got, 200_000)
		cause := causeOf(t, gateway)
		require.ErrorIs(t, cause, transport.Draining)
		require.ErrorIs(t, cause, net.ErrClosed)
	})
}
