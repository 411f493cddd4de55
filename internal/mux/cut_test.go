package mux_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

// recorder keeps what is written.
type recorder struct {
	net.Conn
	mu  sync.Mutex
	all []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.all = append(r.all, p...)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// session is what an agent sends in a short life: streams that are complete, half,
// reset and empty, small frames and large ones, and a goodbye.
func session(t *testing.T) []byte {
	a, b := net.Pipe()
	rec := &recorder{Conn: a}
	agent, gateway := mux.New(rec, true, tls.ConnectionState{}, mux.Config{}), mux.New(b, false, tls.ConnectionState{}, mux.Config{})
	for i, say := range []func(transport.Stream) error{
		func(s transport.Stream) error { _, err := io.WriteString(s, "complete"); return err },
		func(s transport.Stream) error { _, err := s.Write(make([]byte, 3000)); return err },
		func(s transport.Stream) error { return s.CloseWrite() },
		func(s transport.Stream) error { _, err := io.WriteString(s, "half"); return err },
		func(s transport.Stream) error { _, _ = s.Write([]byte("x")); return s.Reset(transport.Denied) },
	} {
		s, err := agent.OpenStream(soon(t))
		require.NoError(t, err)
		require.NoError(t, say(s))
		if i < 2 {
			require.NoError(t, s.Close())
		}
		accepted(t, gateway) // so that frames of all streams are not one batch
	}
	require.NoError(t, agent.CloseWithError(transport.Draining, "bye"))
	require.NoError(t, gateway.CloseWithError(transport.NoError, ""))
	return rec.all
}

// received is what a direction must have delivered when the carrier ends.
type received struct {
	data     []byte
	complete bool
	reset    bool
}

// expected reads frames as the specification says, up to where they are cut.
func expected(b []byte) (streams []received, goodbye bool) {
	for len(b) >= 8 {
		typ, n := b[0], int(binary.BigEndian.Uint32(b)&0xffffff)
		at := int(binary.BigEndian.Uint32(b[4:])-1) / 2
		payload := b[8:min(8+n, len(b))]
		whole := len(payload) == n
		switch {
		case typ == openFrame:
			streams = append(streams, received{})
		case typ == dataFrame:
			streams[at].data = append(streams[at].data, payload...)
		case typ == endFrame && whole:
			streams[at].complete = true
		case typ == resetFrame && whole:
			streams[at].reset = true
		case typ == goAwayFrame && whole:
			goodbye = true
		}
		b = b[8+len(payload):]
	}
	return streams, goodbye
}

func TestACutAtAnyByteIsNeverAnEnd(t *testing.T) {
	all := session(t)
	ends := 0
	for cut := range len(all) + 1 {
		want, goodbye := expected(all[:cut])
		conn := newReplay(all[:cut])
		m := mux.New(conn, false, tls.ConnectionState{}, mux.Config{})
		// The carrier ends before anybody accepts, so the streams come from its end.
		<-m.Context().Done()
		cause := causeOf(t, m)
		if goodbye {
			require.Equal(t, transport.CloseError{Code: transport.Draining, Reason: "bye", Remote: true}, *cause)
		} else {
			require.Equal(t, transport.CloseError{Code: transport.ConnectionLost, Remote: true}, *cause, "cut at byte %d", cut)
		}
		for i, s := range m.Unaccepted() {
			got, err := io.ReadAll(s)
			switch {
			case want[i].reset:
				require.ErrorIs(t, err, transport.Denied)
			case want[i].complete:
				require.NoError(t, err, "cut at byte %d, stream %d", cut, i)
				ends++
			default:
				require.ErrorIs(t, err, cause.Code, "cut at byte %d, stream %d", cut, i)
			}
			if !want[i].reset {
				require.True(t, bytes.Equal(want[i].data, got), "cut at byte %d, stream %d: what had arrived comes first", cut, i)
			}
			require.NoError(t, s.Close())
		}
		require.Len(t, m.Unaccepted(), len(want))
		require.NoError(t, m.CloseWithError(transport.NoError, ""))
	}
	require.Greater(t, len(all), 3000)
	require.Positive(t, ends)
}
