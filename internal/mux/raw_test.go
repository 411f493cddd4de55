package mux_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

// The frames as the specification writes them down, apart from the code that is
// tested.
const (
	streamsFrame, openFrame, dataFrame, creditFrame, endFrame = 1, 2, 3, 4, 5
	resetFrame, stopFrame, pingFrame, pongFrame, goAwayFrame  = 6, 7, 8, 9, 10

	firstCredit, longestData = 16384, 65536
)

func frame(typ byte, stream uint32, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(typ)<<24|uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

func data(stream uint32, n int) []byte { return frame(dataFrame, stream, make([]byte, n)...) }

func frame32(typ byte, stream, v uint32) []byte {
	return frame(typ, stream, binary.BigEndian.AppendUint32(nil, v)...)
}

func frame64(typ byte, stream uint32, v uint64) []byte {
	return frame(typ, stream, binary.BigEndian.AppendUint64(nil, v)...)
}

func join(frames ...[]byte) (all []byte) {
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

// raw is a peer that sends what it likes.
type raw struct {
	tb    testing.TB
	conn  *net.TCPConn
	first uint32 // the stream that it may open first
	ours  uint32 // the stream that the other side opens first
}

func (r raw) send(frames ...[]byte) {
	// An error means that the other side has ended the connection already, which
	// the test looks at there.
	_ = r.conn.SetWriteDeadline(time.Now().Add(patience))
	_, _ = r.conn.Write(join(frames...))
}

// goodbye reads in the background up to the end of the connection, and returns the
// payload of the GOAWAY that was its last frame.
func (r raw) goodbye() <-chan []byte {
	last := make(chan []byte, 1)
	go func() {
		var h [8]byte
		for {
			if _, err := io.ReadFull(r.conn, h[:]); err != nil {
				last <- nil
				return
			}
			payload := make([]byte, binary.BigEndian.Uint32(h[:])&0xffffff)
			if _, err := io.ReadFull(r.conn, payload); err != nil {
				last <- nil
				return
			}
			if h[0] == goAwayFrame {
				n, err := r.conn.Read(h[:])
				if n > 0 || err == nil {
					payload = nil // it was not the last
				}
				last <- payload
				return
			}
		}
	}()
	return last
}

// bothWays runs a test against both sides of a connection whose peer has sent
// STREAMS.
func bothWays(t *testing.T, cfg mux.Config, f func(t *testing.T, attacker raw, m *mux.Mux)) {
	for _, c := range []struct {
		name        string
		client      bool
		first, ours uint32
	}{{"a hostile agent", false, 1, 2}, {"a hostile gateway", true, 2, 1}} {
		t.Run(c.name, func(t *testing.T) {
			conn, theirs := sockets(t)
			m := mux.New(conn, c.client, tls.ConnectionState{}, cfg)
			t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "end of test") })
			t.Cleanup(func() { _ = theirs.Close() }) // first, as it may not answer a goodbye
			attacker := raw{t, theirs, c.first, c.ours}
			attacker.send(frame32(streamsFrame, 0, 100))
			f(t, attacker, m)
		})
	}
}

// causeOf waits for the end of m.
func causeOf(tb testing.TB, m transport.Mux) *transport.CloseError {
	tb.Helper()
	eventually(tb, m.Context().Done(), "the end of the connection")
	var cause *transport.CloseError
	require.ErrorAs(tb, context.Cause(m.Context()), &cause)
	return cause
}

// accepted is the next stream that the peer opened.
func accepted(tb testing.TB, m transport.Mux) transport.Stream {
	tb.Helper()
	s, err := m.AcceptStream(soon(tb))
	require.NoError(tb, err)
	require.NoError(tb, s.SetDeadline(time.Now().Add(patience)))
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// opened is a new stream that the peer knows.
func opened(tb testing.TB, m transport.Mux) transport.Stream {
	tb.Helper()
	s, err := m.OpenStream(soon(tb))
	require.NoError(tb, err)
	require.NoError(tb, s.SetDeadline(time.Now().Add(patience)))
	tb.Cleanup(func() { _ = s.Close() })
	_, err = s.Write(nil)
	require.NoError(tb, err)
	return s
}

// eventually waits for a channel.
func eventually[T any](tb testing.TB, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		tb.Fatalf("%s: not within %v", what, patience)
		panic("unreachable")
	}
}
