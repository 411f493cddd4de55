package quic_test

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// hostileAgent has a good certificate and speaks QUIC, but nothing beyond.
func hostileAgent(t testing.TB, ca *testca.CA, l *quic.Listener, protocol string) (*quicgo.Conn, error) {
	t.Helper()
	config := ca.Agent("hostile")
	config.NextProtos = []string{protocol}
	config.ServerName = "127.0.0.1"
	udp := socket(t)
	tr := &quicgo.Transport{Conn: udp}
	t.Cleanup(func() {
		_ = tr.Close()
		_ = udp.Close()
	})
	return tr.Dial(soon(t), l.Addr(), config, &quicgo.Config{EnableStreamResetPartialDelivery: true})
}

// hostileGateway has a good certificate and lets do serve each connection.
func hostileGateway(t *testing.T, ca *testca.CA, config *quicgo.Config, do func(*quicgo.Conn)) (url string) {
	t.Helper()
	tlsConfig := ca.Gateway()
	tlsConfig.NextProtos = []string{"outgate/1"}
	udp := socket(t)
	tr := &quicgo.Transport{Conn: udp}
	l, err := tr.Listen(tlsConfig, config)
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			do(conn)
		}
	}()
	t.Cleanup(func() {
		_ = tr.Close()
		_ = udp.Close()
		<-served
	})
	return urlOf(udp.LocalAddr())
}

// requireServing proves that the listener still takes connections, and that one
// that was there before still works.
func requireServing(t *testing.T, ca *testca.CA, l *quic.Listener, agent, gateway transport.Mux) {
	t.Helper()
	for _, m := range [][2]transport.Mux{{agent, gateway}, {gateway, agent}} {
		opened, accepted := open(t, m[0], m[1], "hello")
		got := make([]byte, 5)
		_, err := io.ReadFull(accepted, got)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, opened.Close())
		require.NoError(t, accepted.Close())
	}
	connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-2")})
}

func TestGarbageDatagramsHarmNobody(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	udp := socket(t)
	t.Cleanup(func() { _ = udp.Close() })

	initial := captureInitial(t, ca)
	for i := range 2000 {
		b := make([]byte, 1+i%1500)
		_, _ = rand.Read(b)
		switch i % 4 {
		case 0: // a long header, maybe a version of the future
			b[0] |= 0xc0
		case 1: // a short header for nobody
			b[0] = b[0]&0x7f | 0x40
		case 2: // a handshake that was damaged on its way
			b = append(b[:0], initial...)
			b[6+i%(len(b)-6)] ^= 0x55
		}
		_, err := udp.WriteTo(b, l.Addr())
		require.NoError(t, err)
	}
	requireServing(t, ca, l, agent, gateway)
}

// captureInitial returns the first datagram of a new handshake.
func captureInitial(t testing.TB, ca *testca.CA) []byte {
	t.Helper()
	trap := &trapConn{PacketConn: socket(t), sent: make(chan []byte, 1)}
	d := &quic.Dialer{
		TLSClientConfig: ca.Agent("half"),
		ListenPacket:    func(context.Context, string, string) (net.PacketConn, error) { return trap, nil },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.Dial(ctx, "https://127.0.0.1:1")
	}()
	b := eventually(t, trap.sent, "the first datagram")
	cancel()
	<-done
	return b
}

// halfHandshake begins a handshake and never goes on. It returns the first byte
// of the answer.
func halfHandshake(t *testing.T, ca *testca.CA, l *quic.Listener) byte {
	t.Helper()
	udp := socket(t)
	defer udp.Close()
	_, err := udp.WriteTo(captureInitial(t, ca), l.Addr())
	require.NoError(t, err)
	b := make([]byte, 2048)
	require.NoError(t, udp.SetReadDeadline(time.Now().Add(patience)))
	_, _, err = udp.ReadFrom(b)
	require.NoError(t, err)
	return b[0]
}

// isRetry looks at the type of a long header (RFC 9000, section 17.2).
func isRetry(first byte) bool { return first&0xf0 == 0xf0 }

func TestAFloodOfHandshakesMustProveItsAddresses(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{RetryAbove: 3})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})

	for range 3 {
		require.False(t, isRetry(halfHandshake(t, ca, l)), "below the limit a handshake costs no extra round trip")
	}
	require.True(t, isRetry(halfHandshake(t, ca, l)))
	requireServing(t, ca, l, agent, gateway)
}

func TestEveryAddressMayBeValidated(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{RetryAbove: -1})
	require.True(t, isRetry(halfHandshake(t, ca, l)))
	connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
}

func TestHalfHandshakesLoseTheirPlaceInTime(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{MaxHandshakes: 2, HandshakeTimeout: time.Second})
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	agent, gateway := connect(t, l, d)

	start := time.Now()
	halfHandshake(t, ca, l)
	halfHandshake(t, ca, l)
	refused := 0
	for {
		m, err := d.Dial(soon(t), urlOf(l.Addr()))
		if err == nil {
			require.NoError(t, m.CloseWithError(transport.NoError, ""))
			break
		}
		require.ErrorIs(t, err, transport.Overloaded)
		assert.ErrorContains(t, err, "try again later")
		refused++
		opened, accepted := open(t, agent, gateway, "undisturbed")
		require.NoError(t, opened.Close())
		require.NoError(t, accepted.Close())
		require.Less(t, time.Since(start), patience, "the half handshakes keep their places")
	}
	assert.Positive(t, refused, "the limit must hold")
}

func TestAnotherProtocolIsRefused(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	for _, protocol := range []string{"h3", "outgate/2", "outgate/10"} {
		_, err := hostileAgent(t, ca, l, protocol)
		require.ErrorContains(t, err, "no application protocol", "ALPN %q", protocol)
	}

	h3 := ca.Gateway()
	h3.NextProtos = []string{"h3"}
	udp := socket(t)
	tr := &quicgo.Transport{Conn: udp}
	other, err := tr.Listen(h3, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = other.Close()
		_ = tr.Close()
		_ = udp.Close()
	})
	_, err = (&quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(soon(t), urlOf(udp.LocalAddr()))
	require.ErrorIs(t, err, transport.Protocol)
	assert.ErrorContains(t, err, "compatible versions")
}

func TestAHostileAgentOnItsControlStreamLosesItsConnectionAlone(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})

	for name, attack := range map[string]func(*quicgo.SendStream){
		"ends it":                func(s *quicgo.SendStream) { _ = s.Close() },
		"resets it":              func(s *quicgo.SendStream) { _, _ = s.Write([]byte{2}); s.CancelWrite(7) },
		"sends an unknown type":  func(s *quicgo.SendStream) { _, _ = s.Write([]byte{99}) },
		"sends ready, too":       func(s *quicgo.SendStream) { _, _ = s.Write([]byte{1}) },
		"sends half a goodbye":   func(s *quicgo.SendStream) { _, _ = s.Write([]byte{2, 0, 0}) },
		"announces a long story": func(s *quicgo.SendStream) { _, _ = s.Write([]byte{2, 0, 0, 0, 0, 255}) },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := hostileAgent(t, ca, l, "outgate/1")
			require.NoError(t, err)
			victim, err := l.Accept(soon(t))
			require.NoError(t, err)
			control, err := conn.OpenUniStream()
			require.NoError(t, err)
			_, err = conn.OpenUniStream()
			require.ErrorAs(t, err, new(*quicgo.StreamLimitReachedError), "one control stream is all that there is")

			attack(control)
			eventually(t, victim.Context().Done(), "the end of the connection")
			assert.ErrorIs(t, context.Cause(victim.Context()), transport.Protocol)
			eventually(t, conn.Context().Done(), "the end, on its side")
		})
	}
	requireServing(t, ca, l, agent, gateway)
}

func TestAGoodbyeWithAnUglyReasonIsCleaned(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	conn, err := hostileAgent(t, ca, l, "outgate/1")
	require.NoError(t, err)
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	control, err := conn.OpenUniStream()
	require.NoError(t, err)
	_, err = control.Write([]byte("\x02\xff\xff\xff\xff\x03a\xffb"))
	require.NoError(t, err)

	eventually(t, gateway.Context().Done(), "the end of the connection")
	assert.Equal(t, &transport.CloseError{Code: 1<<32 - 1, Reason: "ab", Remote: true}, context.Cause(gateway.Context()))
}

func TestAHostileStreamCodeStaysInItsStream(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	conn, err := hostileAgent(t, ca, l, "outgate/1")
	require.NoError(t, err)
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	reset := func(code quicgo.StreamErrorCode) error {
		s, err := conn.OpenStreamSync(soon(t))
		require.NoError(t, err)
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		accepted, err := gateway.AcceptStream(soon(t))
		require.NoError(t, err)
		defer accepted.Close()
		s.CancelWrite(code) // half of a reset; the other half may be lost
		_, err = io.Copy(io.Discard, accepted)
		_, werr := accepted.Write([]byte("x"))
		assert.Equal(t, err, werr)
		return err
	}

	assert.Equal(t, &transport.StreamError{Code: transport.Denied, Remote: true}, reset(quicgo.StreamErrorCode(transport.Denied)))
	assert.Equal(t, &transport.StreamError{Code: 1<<32 - 1, Remote: true}, reset(1<<32-1), "a code of the future")
	require.NoError(t, gateway.Context().Err())

	// The mark of a connection's end, without the end.
	err = reset(1<<32 | quicgo.StreamErrorCode(transport.Draining))
	assert.ErrorIs(t, err, transport.Draining)
	assert.ErrorIs(t, err, net.ErrClosed)
	require.Error(t, gateway.Context().Err(), "a stream that ends with its connection ends it")
}

func TestAHostileGatewayCannotKeepDialWaiting(t *testing.T) {
	ca := testca.New(t)
	say := func(b string) func(*quicgo.Conn) {
		return func(c *quicgo.Conn) {
			if s, err := c.OpenUniStream(); err == nil {
				_, _ = s.Write([]byte(b))
			}
		}
	}
	for name, tc := range map[string]struct {
		config *quicgo.Config
		do     func(*quicgo.Conn)
		code   transport.Code
	}{
		"says nothing":             {nil, func(*quicgo.Conn) {}, transport.Timeout},
		"says something else":      {nil, say("\x09"), transport.Protocol},
		"says goodbye":             {nil, say("\x02\x00\x00\x00\x00\x00"), transport.Protocol},
		"takes no control stream":  {&quicgo.Config{MaxIncomingUniStreams: -1}, say("\x01"), transport.Protocol},
		"closes with a code":       {nil, func(c *quicgo.Conn) { _ = c.CloseWithError(11, "restart") }, transport.Draining},
		"closes with a large code": {nil, func(c *quicgo.Conn) { _ = c.CloseWithError(1<<40, strings.Repeat("x", 900)) }, transport.Protocol},
		"resets its control stream": {nil, func(c *quicgo.Conn) {
			if s, err := c.OpenUniStream(); err == nil {
				s.CancelWrite(1)
			}
		}, transport.Protocol},
	} {
		t.Run(name, func(t *testing.T) {
			url := hostileGateway(t, ca, tc.config, tc.do)
			d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1"), HandshakeTimeout: time.Second}
			_, err := d.Dial(soon(t), url)
			require.ErrorIs(t, err, tc.code)
			assert.Less(t, len(err.Error()), 500)
		})
	}
}

func TestConnectionsThatNobodyAcceptsAreBounded(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{Backlog: 2})
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	var waiting []transport.Mux
	for range 2 {
		m, err := d.Dial(soon(t), urlOf(l.Addr()))
		require.NoError(t, err)
		waiting = append(waiting, m)
	}
	_, err := d.Dial(soon(t), urlOf(l.Addr()))
	require.ErrorIs(t, err, transport.Overloaded)

	// One that ended while it waited is not handed out.
	require.NoError(t, waiting[0].CloseWithError(transport.NoError, ""))
	accepted, err := l.Accept(soon(t))
	require.NoError(t, err)
	require.NoError(t, accepted.CloseWithError(transport.Draining, "the second"))
	eventually(t, waiting[1].Context().Done(), "the end of the second")
}
