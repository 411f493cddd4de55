package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func FuzzHeader(f *testing.F) {
	for _, g := range golden {
		f.Add(g.frame[:headerSize])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader([headerSize]byte(b))
		if err != nil {
			return
		}
		require.Equal(t, b[:headerSize], appendHeader(nil, h.typ, h.length, h.stream))
		require.LessOrEqual(t, h.length, maxData)
		require.NotEmpty(t, h.typ.String())
	})
}

// FuzzSession gives a connection what a peer might send. Whatever that is, the
// connection ends, holds no more than its limits, gives all of it back, and nothing
// panics.
func FuzzSession(f *testing.F) {
	start := appendControl(nil, frameStreams, 0, 10)
	open := appendControl(bytes.Clone(start), frameOpen, 1, 0)
	f.Add(start)
	f.Add(appendControl(appendData(bytes.Clone(open), 1, []byte("hello")), frameEnd, 1, 5))
	f.Add(appendControl(bytes.Clone(open), frameReset, 1, 4))
	f.Add(appendControl(bytes.Clone(open), frameStop, 2, 4))
	f.Add(appendControl(bytes.Clone(open), frameCredit, 2, 1<<20))
	f.Add(appendControl(appendControl(bytes.Clone(open), framePing, 0, 9), framePong, 0, 1))
	f.Add(append(bytes.Clone(open), goAway(transport.Draining, "bye")...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	const budget = 512 << 10
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New(&recording{Reader: bytes.NewReader(b)}, false, tls.ConnectionState{}, Config{MaxStreams: 4, WindowBudget: budget})
		s, err := m.OpenStream(t.Context()) // stream 2, for the peer to speak of
		if err == nil {
			_, _ = s.Write(make([]byte, 100))
			defer s.Close()
		}
		for {
			s, err := m.AcceptStream(t.Context())
			if err != nil {
				break
			}
			_, _ = io.Copy(io.Discard, s)
			_ = s.Close()
		}
		<-m.Context().Done()
		require.NoError(t, m.CloseWithError(transport.NoError, ""))
		var cause *transport.CloseError
		require.ErrorAs(t, context.Cause(m.Context()), &cause)
		require.Zero(t, m.sender.urgent.len()+m.sender.queue.len())
		require.LessOrEqual(t, m.accepted-m.finished, uint32(4))
		for _, s := range m.streams {
			require.LessOrEqual(t, s.in.received, uint64(startWindow))
			require.NoError(t, s.Close())
		}
		require.EqualValues(t, budget, m.budget.left.Load())
	})
}

// recording is a connection that reads what was recorded, then ends, and throws
// away what is written.
type recording struct{ io.Reader }

func (*recording) Write(p []byte) (int, error)      { return len(p), nil }
func (*recording) Close() error                     { return nil }
func (*recording) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*recording) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*recording) SetDeadline(time.Time) error      { return nil }
func (*recording) SetReadDeadline(time.Time) error  { return nil }
func (*recording) SetWriteDeadline(time.Time) error { return nil }
