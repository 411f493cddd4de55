package websocket

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func FuzzHeader(f *testing.F) {
	f.Add(appendHeader(nil, cmdOpen, 0, 3))
	f.Add(appendHeader(nil, cmdData, maxFrame, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader([headerSize]byte(b))
		if err != nil {
			return
		}
		require.Equal(t, b[:headerSize], appendHeader(nil, h.command, h.length, h.stream))
		require.LessOrEqual(t, h.length, maxFrame)
		require.NotEqual(t, uint32(1), h.stream)
	})
}

func FuzzControl(f *testing.F) {
	f.Add(appendControl(nil, control{kindStreams, 0, 1024})[headerSize:])
	f.Add(appendControl(nil, control{kindReset, 3, 7})[headerSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < controlSize {
			return
		}
		c, err := parseControl([controlSize]byte(b))
		if err != nil {
			return
		}
		require.Equal(t, b[:controlSize], appendControl(nil, c)[headerSize:])
	})
}

func FuzzClose(f *testing.F) {
	f.Add(appendClose(nil, &transport.CloseError{Code: transport.Revoked, Reason: "your key is lost"})[headerSize:])
	f.Add([]byte("\xff\xff\xff\xff\x00\xc3bell\a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < codeSize || len(b) > codeSize+maxCloseReason {
			return
		}
		e := parseClose(b)
		require.True(t, e.Remote)
		require.LessOrEqual(t, len(e.Reason), maxCloseReason)
		again := appendClose(nil, e)
		require.Equal(t, b[:codeSize], again[headerSize:headerSize+codeSize])
		require.Equal(t, e, parseClose(again[headerSize:]))
		h, err := parseHeader([headerSize]byte(again))
		require.NoError(t, err)
		require.Equal(t, frameHeader{cmdClose, len(again) - headerSize, streamControl}, h)
	})
}

// FuzzConnection gives a connection what a peer might send. Whatever that is, the
// connection ends, holds no more than its limits, and nothing panics.
func FuzzConnection(f *testing.F) {
	start := appendControl(nil, control{kindStreams, 0, 10})
	opened := appendHeader(bytes.Clone(start), cmdOpen, 0, 3)
	talk := appendControl(appendData(bytes.Clone(opened), 3, []byte("hello")), control{kindEnd, 3, 5})
	f.Add(start)
	f.Add(talk)
	f.Add(appendHeader(bytes.Clone(talk), cmdForget, 0, 3))
	f.Add(appendControl(bytes.Clone(opened), control{kindReset, 3, 4}))
	f.Add(appendControl(bytes.Clone(opened), control{kindStop, 2, 4}))
	f.Add(appendWindow(bytes.Clone(opened), 2, windowUpdate{100, 1 << 20}))
	f.Add(appendClose(bytes.Clone(talk), &transport.CloseError{Code: transport.Draining, Reason: "bye"}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	cfg := Config{MaxStreams: 4}.withDefaults(1)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := newMux(&recording{Reader: bytes.NewReader(b)}, false, 0, tls.ConnectionState{}, cfg)
		require.NoError(t, err)
		s, err := m.OpenStream(t.Context()) // stream 2, for the peer to speak of
		if err == nil {
			_, _ = s.Write(make([]byte, 100))
		}
		for {
			s, err := m.AcceptStream(t.Context())
			if err != nil {
				break
			}
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{s})
			_ = s.Close()
		}
		<-m.Context().Done()
		require.NoError(t, m.CloseWithError(transport.NoError, ""))
		var cause *transport.CloseError
		require.ErrorAs(t, context.Cause(m.Context()), &cause)
		if !cause.Remote {
			require.Equal(t, transport.Protocol, cause.Code)
		}
		for _, s := range m.streams {
			require.LessOrEqual(t, s.in.cost, uint64(initialWindow))
		}
		require.LessOrEqual(t, m.accepted-m.finished, uint64(cfg.MaxStreams))
	})
}

// recording is a carrier that reads what was recorded and throws away what is
// written.
type recording struct{ io.Reader }

func (*recording) WriteMessage([]byte) error   { return nil }
func (*recording) Close(*transport.CloseError) {}
func (*recording) Cut()                        {}
func (*recording) Release()                    {}
func (*recording) LocalAddr() net.Addr         { return pathAddr{} }
func (*recording) RemoteAddr() net.Addr        { return pathAddr{} }
