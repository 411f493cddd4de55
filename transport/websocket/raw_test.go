package websocket_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"testing"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// The frames as the specification writes them down, apart from the code that is
// tested.
const (
	syn, fin, psh, nop, upd             = 0, 1, 2, 3, 4
	grantRecord, endRecord              = 1, 2
	resetRecord, stopRecord             = 3, 4
	window, largestFrame, frameOverhead = 256 << 10, 32 << 10, 64
)

func frame(command byte, stream uint32, payload []byte) []byte {
	b := []byte{2, command}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

func record(kind byte, stream uint32, value uint64) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{kind}, stream)
	return frame(psh, 0, binary.LittleEndian.AppendUint64(b, value))
}

func update(stream, consumed, window uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, consumed)
	return frame(upd, stream, binary.LittleEndian.AppendUint32(b, window))
}

func join(frames ...[]byte) (all []byte) {
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

// raw is a peer that has passed the handshake and sends what it likes.
type raw struct {
	tb   testing.TB
	ws   *ws.Conn
	conn net.Conn
}

func (r raw) send(frames ...[]byte) {
	r.tb.Helper()
	// An error means that the other side has ended the connection already, which
	// the test looks at there.
	_ = r.ws.Write(soon(r.tb), ws.MessageBinary, join(frames...))
}

// drain reads in the background, so that the close handshake works, and returns
// how the connection ended.
func (r raw) drain() <-chan error {
	end := make(chan error, 1)
	ctx := soon(r.tb)
	go func() {
		for {
			if _, _, err := r.ws.Read(ctx); err != nil {
				end <- err
				return
			}
		}
	}()
	return end
}

// rawAgent is a hostile agent with a good certificate.
func rawAgent(tb testing.TB, ca *testca.CA, l *websocket.Listener) raw {
	tb.Helper()
	var cable cable
	rt := &http.Transport{TLSClientConfig: ca.Agent("hostile"), DialContext: cable.dial, MaxIdleConnsPerHost: -1}
	c, _, err := ws.Dial(soon(tb), urlOf(l.Addr())+websocket.Path, &ws.DialOptions{
		HTTPClient:   &http.Client{Transport: rt},
		Subprotocols: []string{websocket.Subprotocol},
	})
	require.NoError(tb, err)
	c.SetReadLimit(-1)
	tb.Cleanup(func() { _ = c.CloseNow() })
	return raw{tb, c, cable.conn}
}

// againstAgent is a hostile agent and the gateway's side of its connection.
func againstAgent(tb testing.TB, cfg websocket.Config) (raw, transport.Mux) {
	tb.Helper()
	ca := testca.New(tb)
	l := listen(tb, ca.Gateway(), cfg)
	attacker := rawAgent(tb, ca, l)
	attacker.send(record(grantRecord, 0, 100))
	m, err := l.Accept(soon(tb))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "end of test") })
	tb.Cleanup(func() { _ = attacker.ws.CloseNow() }) // first, as it may not answer a close
	return attacker, m
}

// againstGateway is a hostile gateway and the agent's side of its connection.
func againstGateway(tb testing.TB, cfg websocket.Config) (raw, transport.Mux) {
	tb.Helper()
	ca := testca.New(tb)
	accepted := make(chan *ws.Conn, 1)
	s := serve(tb, ca.Gateway(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrade(w, r, websocket.Subprotocol)
		if err != nil {
			tb.Error(err)
			return
		}
		_ = c.Write(context.Background(), ws.MessageBinary, record(grantRecord, 0, 100))
		accepted <- c
	}))
	var cable cable
	m, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: cfg, NetDial: cable.dial}).Dial(soon(tb), s.URL)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "end of test") })
	c := eventually(tb, accepted, "the upgrade")
	c.SetReadLimit(-1)
	tb.Cleanup(func() { _ = c.CloseNow() })
	return raw{tb, c, cable.conn}, m
}

func upgrade(w http.ResponseWriter, r *http.Request, subprotocol string) (*ws.Conn, error) {
	return ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{subprotocol}})
}

// bothWays runs a test against both implementations of the peer. first is the
// number of the first stream that the attacker opens, ours that of the other side.
func bothWays(t *testing.T, cfg websocket.Config, f func(t *testing.T, attacker raw, m transport.Mux, first, ours uint32)) {
	t.Run("a hostile agent", func(t *testing.T) {
		attacker, m := againstAgent(t, cfg)
		f(t, attacker, m, 3, 2)
	})
	t.Run("a hostile gateway", func(t *testing.T) {
		attacker, m := againstGateway(t, cfg)
		f(t, attacker, m, 2, 3)
	})
}

// causeOf waits for the end of m.
func causeOf(tb testing.TB, m transport.Mux) *transport.CloseError {
	tb.Helper()
	eventually(tb, m.Context().Done(), "the end of the connection")
	var cause *transport.CloseError
	require.ErrorAs(tb, context.Cause(m.Context()), &cause)
	return cause
}
