package websocket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/transporttest"
	"github.com/outgate/outgate/transport/websocket"
)

// outer is what a Dialer has for a balancer with a certificate of the authority.
func outer(ca *testca.CA) *tls.Config { return &tls.Config{RootCAs: ca.Pool()} }

// anonymous is a TLS server that asks nobody for a certificate, as a balancer is.
func anonymous(ca *testca.CA) *tls.Config {
	return &tls.Config{Certificates: ca.Gateway().Certificates}
}

// Over smux this takes OUTGATE_TORTURE=1: the suite runs over it without the TLS inside,
// and with it over the other multiplexer.
func TestTLSInsideTheWebSocketKeepsThePromisesOfATransport(t *testing.T) {
	t.Run("Native", func(t *testing.T) { transporttest.Run(t, innerHarness(t, websocket.Native)) })
	if os.Getenv("OUTGATE_TORTURE") == "1" {
		t.Run("Smux", func(t *testing.T) { transporttest.Run(t, innerHarness(t, websocket.Smux)) })
	} else {
		t.Log("over smux only with OUTGATE_TORTURE=1")
	}
}

func BenchmarkInnerTransport(b *testing.B) {
	for name, m := range multiplexers {
		b.Run(name, func(b *testing.B) { transporttest.Benchmark(b, innerHarness(b, m)) })
	}
}

func innerHarness(tb testing.TB, m websocket.Multiplexer) transporttest.Harness {
	gatewayCA, balancerCA := testca.New(tb), testca.New(tb)
	const maxStreams = 1024
	return transporttest.Harness{
		MaxStreams:  maxStreams,
		MaxBuffered: 1 << 20,
		Connect: func(tb testing.TB) transporttest.Pair {
			tb.Helper()
			cfg := websocket.Config{MaxStreams: maxStreams, Multiplexer: m}
			served := cfg
			served.InnerTLS = gatewayCA.Gateway()
			var cable cable
			agent, gateway := connect(tb, listen(tb, anonymous(balancerCA), served), &websocket.Dialer{
				TLSClientConfig: gatewayCA.Agent("agent-1"),
				OuterTLS:        outer(balancerCA),
				Config:          cfg,
				NetDial:         cable.dial,
			})
			return transporttest.Pair{Dialed: agent, Accepted: gateway, Cut: cable.cut}
		},
	}
}

func TestTheInnerCertificatesAreTheIdentity(t *testing.T) {
	gatewayCA, balancerCA := testca.New(t), testca.New(t)
	l := listen(t, balancerCA.Gateway(), websocket.Config{InnerTLS: gatewayCA.Gateway()}) // which demands an outer certificate, too
	outside := balancerCA.Agent("outside")
	agent, gateway := connect(t, l, &websocket.Dialer{TLSClientConfig: gatewayCA.Agent("inside"), OuterTLS: outside})
	carries(t, agent, gateway)
	require.Equal(t, "inside", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	for _, m := range []transport.Mux{agent, gateway} {
		require.Equal(t, websocket.InnerNativeSubprotocol, m.ConnectionState().NegotiatedProtocol)
		require.EqualValues(t, tls.VersionTLS13, m.ConnectionState().Version)
	}

	for name, c := range map[string]*tls.Config{
		"another authority": func() *tls.Config {
			c := testca.New(t).Agent("inside")
			c.RootCAs = gatewayCA.Pool()
			return c
		}(),
		"a gateway of another authority": balancerCA.Agent("inside"),
		"another name": func() *tls.Config {
			c := gatewayCA.Agent("inside")
			c.ServerName = "elsewhere.test"
			return c
		}(),
	} {
		_, err := (&websocket.Dialer{TLSClientConfig: c, OuterTLS: outside}).Dial(soon(t), urlOf(l.Addr()))
		require.Error(t, err, name)
		require.ErrorContains(t, err, "inside the WebSocket", name)
	}
}

func TestAListenerTakesTheMutualTLSWhereItIsToldAndNowhereElse(t *testing.T) {
	ca := testca.New(t)
	plain := func(t *testing.T, ca *testca.CA) *websocket.Listener {
		return listen(t, ca.Gateway(), websocket.Config{})
	}
	inside := func(t *testing.T, ca *testca.CA) *websocket.Listener {
		c := ca.Gateway()
		c.ClientAuth = tls.VerifyClientCertIfGiven
		return listen(t, c, websocket.Config{InnerTLS: ca.Gateway()})
	}
	for _, c := range []struct {
		name   string
		listen func(*testing.T, *testca.CA) *websocket.Listener
		outer  *tls.Config
		says   string
	}{
		{"mutual TLS outside, wanted inside", inside, nil, "OuterTLS"},
		{"mutual TLS inside, wanted outside", plain, ca.Agent("agent-1"), "InnerTLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.listen(t, ca)
			_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), OuterTLS: c.outer}).Dial(soon(t), urlOf(l.Addr()))
			var refused *websocket.HandshakeError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, http.StatusForbidden, refused.Status)
			require.Contains(t, refused.Reason, c.says)
			require.ErrorIs(t, err, transport.Denied)
		})
	}
}

func TestTheInnerProtocolIsTheOneOfTheWebSocket(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, anonymous(ca), websocket.Config{InnerTLS: ca.Gateway()})
	for name, protocols := range map[string][]string{"another": {websocket.Subprotocol}, "none": nil} {
		c, _, err := ws.Dial(soon(t), urlOf(l.Addr())+websocket.Path, &ws.DialOptions{
			HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: outer(ca), MaxIdleConnsPerHost: -1}},
			Subprotocols: []string{websocket.InnerSubprotocol},
		})
		require.NoError(t, err, name)
		t.Cleanup(func() { _ = c.CloseNow() })
		inner := ca.Agent("agent-1")
		inner.ServerName, inner.NextProtos = "localhost", protocols
		inside := tls.Client(ws.NetConn(soon(t), c, ws.MessageBinary), inner)
		if err = inside.HandshakeContext(soon(t)); err == nil {
			_, err = inside.Read(make([]byte, 1))
		}
		require.Error(t, err, name)
	}
}

func TestNobodyBetweenChoosesTheMultiplexer(t *testing.T) {
	ca := testca.New(t)
	gateway := listen(t, nil, websocket.Config{InnerTLS: ca.Gateway(), AllowPlainHTTP: true})
	front := meddler(t, ca, gateway, websocket.InnerSubprotocol, make(chan *ws.Conn, 1)) // the second best
	_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), OuterTLS: outer(ca)}).Dial(soon(t), front)
	require.ErrorContains(t, err, "something between")
}

func TestPlainHTTPIsForInnerTLSAndOnlyOnRequest(t *testing.T) {
	ca := testca.New(t)
	_, err := websocket.Listen("127.0.0.1:0", nil, websocket.Config{InnerTLS: ca.Gateway()})
	require.ErrorContains(t, err, "AllowPlainHTTP")
	_, err = websocket.Listen("127.0.0.1:0", ca.Gateway(), websocket.Config{AllowPlainHTTP: true})
	require.ErrorContains(t, err, "InnerTLS")
	noCAs := ca.Gateway()
	noCAs.ClientCAs = nil
	_, err = websocket.Listen("127.0.0.1:0", ca.Gateway(), websocket.Config{InnerTLS: noCAs})
	require.ErrorContains(t, err, "ClientCAs")
	_, err = websocket.NewListener(websocket.Config{InnerTLS: noCAs}).Accept(soon(t))
	require.ErrorContains(t, err, "ClientCAs")

	l := websocket.NewListener(websocket.Config{InnerTLS: ca.Gateway()})
	t.Cleanup(func() { _ = l.Close() })
	behind := "http://" + servePlain(t, l).String()
	_, err = (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), OuterTLS: outer(ca)}).Dial(soon(t), balancer(t, ca, behind))
	require.ErrorContains(t, err, "AllowPlainHTTP")
}

func TestATunnelCrossesABalancerThatEndsTheTLS(t *testing.T) {
	gatewayCA, balancerCA := testca.New(t), testca.New(t)
	var log syncBuffer
	l := listen(t, nil, websocket.Config{
		InnerTLS: gatewayCA.Gateway(), AllowPlainHTTP: true, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	front := balancer(t, balancerCA, "http://"+l.Addr().String())
	d := &websocket.Dialer{TLSClientConfig: gatewayCA.Agent("agent-1"), OuterTLS: outer(balancerCA)}
	agent, err := d.Dial(soon(t), front)
	require.NoError(t, err)
	t.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "") })
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	carries(t, agent, gateway)
	require.Equal(t, "agent-1", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	require.NoError(t, gateway.CloseWithError(transport.Revoked, "your key is lost"))
	require.Equal(t, transport.CloseError{Code: transport.Revoked, Reason: "your key is lost", Remote: true}, *causeOf(t, agent))

	// Without OuterTLS the agent says what is in the way.
	_, err = (&websocket.Dialer{TLSClientConfig: gatewayCA.Agent("agent-1")}).Dial(soon(t), front)
	require.ErrorContains(t, err, "OuterTLS")
	mistaken := gatewayCA.Agent("agent-1")
	mistaken.RootCAs = balancerCA.Pool()
	_, err = (&websocket.Dialer{TLSClientConfig: mistaken}).Dial(soon(t), front)
	require.ErrorContains(t, err, "OuterTLS")
	require.Contains(t, log.String(), "OuterTLS")
}

// A balancer can end the connection. It cannot say why in the name of the peer.
func TestWhatIsAroundTheInnerTLSCanOnlyLoseTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		forge  func(*ws.Conn)
		reason string
	}{
		"a close with the code Revoked": {
			func(c *ws.Conn) { _ = c.Close(4000+ws.StatusCode(transport.Revoked), "be gone") }, "be gone",
		},
		"a close with any code": {
			func(c *ws.Conn) { _ = c.Close(4999, "13: be gone") }, "be gone",
		},
		"a graceful close":         {func(c *ws.Conn) { _ = c.Close(ws.StatusNormalClosure, "") }, "1000"},
		"a close for a bad frame":  {func(c *ws.Conn) { _ = c.Close(ws.StatusProtocolError, "") }, "1002"},
		"a message of text":        {func(c *ws.Conn) { _ = c.Write(context.Background(), ws.MessageText, []byte("x")) }, "not binary"},
		"a message that is no TLS": {func(c *ws.Conn) { _ = c.Write(context.Background(), ws.MessageBinary, make([]byte, 100)) }, "tls"},
		"a message too long":       {func(c *ws.Conn) { _ = c.Write(context.Background(), ws.MessageBinary, make([]byte, 200<<10)) }, ""},
		"no close at all":          {func(c *ws.Conn) { _ = c.CloseNow() }, ""},
	} {
		for over, subprotocol := range map[websocket.Multiplexer]string{
			websocket.Native: websocket.InnerNativeSubprotocol, websocket.Smux: websocket.InnerSubprotocol,
		} {
			t.Run(name+", "+subprotocol, func(t *testing.T) {
				ca := testca.New(t)
				gateway := listen(t, nil, websocket.Config{InnerTLS: ca.Gateway(), AllowPlainHTTP: true, Multiplexer: over})
				toAgent := make(chan *ws.Conn, 1)
				front := meddler(t, ca, gateway, subprotocol, toAgent)
				d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), OuterTLS: outer(ca)}
				agent, err := d.Dial(soon(t), front)
				require.NoError(t, err)
				t.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "") })
				m, err := gateway.Accept(soon(t))
				require.NoError(t, err)
				opened, accepted := open(t, m, agent)
				_, err = opened.Write([]byte("half of it"))
				require.NoError(t, err)
				got := make([]byte, 10)
				_, err = io.ReadFull(accepted, got)
				require.NoError(t, err)

				c.forge(eventually(t, toAgent, "the connection of the meddler"))
				cause := causeOf(t, agent)
				require.Equal(t, transport.ConnectionLost, cause.Code)
				require.True(t, cause.Remote)
				require.Contains(t, cause.Reason, c.reason)
				_, err = io.ReadAll(accepted)
				require.ErrorIs(t, err, transport.ConnectionLost)
				require.Equal(t, transport.ConnectionLost, causeOf(t, m).Code, "the other side learns no more than that")
			})
		}
	}
}

// meddler is a balancer that ends TLS and WebSocket, has agent and gateway agree on a
// subprotocol, forwards messages both ways and hands out its end of the WebSocket with
// the agent.
func meddler(t *testing.T, ca *testca.CA, gateway *websocket.Listener, subprotocol string, toAgent chan<- *ws.Conn) string {
	return serve(t, anonymous(ca), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		near, err := upgrade(w, r, subprotocol)
		if err != nil {
			t.Error(err)
			return
		}
		defer near.CloseNow()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		far, _, err := ws.Dial(ctx, "http://"+gateway.Addr().String()+websocket.Path, &ws.DialOptions{
			Subprotocols: []string{subprotocol},
			HTTPClient:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: -1}},
		})
		if err != nil {
			t.Error(err)
			return
		}
		defer far.CloseNow()
		toAgent <- near
		var ways sync.WaitGroup
		for _, way := range [][2]*ws.Conn{{near, far}, {far, near}} {
			way[0].SetReadLimit(-1)
			ways.Go(func() {
				defer cancel()
				for {
					typ, message, err := way[0].Read(ctx)
					if err == nil {
						err = way[1].Write(ctx, typ, message)
					}
					if err != nil {
						return
					}
				}
			})
		}
		ways.Wait()
	})).URL
}

// balancer is one that ends the TLS and forwards the rest.
func balancer(tb testing.TB, ca *testca.CA, to string) string {
	tb.Helper()
	u, err := url.Parse(to)
	require.NoError(tb, err)
	p := httputil.NewSingleHostReverseProxy(u)
	p.Transport = &http.Transport{MaxIdleConnsPerHost: -1}
	return serve(tb, anonymous(ca), p).URL
}

// servePlain serves h over plain HTTP.
func servePlain(tb testing.TB, h http.Handler) net.Addr {
	tb.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	s := &http.Server{Handler: h, ReadHeaderTimeout: patience}
	done := make(chan error, 1)
	go func() { done <- s.Serve(socket) }()
	tb.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
	})
	return socket.Addr()
}

// syncBuffer is a buffer for a log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestAnInnerHandshakeThatStallsEnds(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	l := listen(t, anonymous(ca), websocket.Config{InnerTLS: ca.Gateway(), HandshakeTimeout: 2 * time.Second})
	c, _, err := ws.Dial(soon(t), urlOf(l.Addr())+websocket.Path, &ws.DialOptions{
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: outer(ca), MaxIdleConnsPerHost: -1}},
		Subprotocols: []string{websocket.InnerSubprotocol},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.CloseNow() })
	_, _, err = c.Read(soon(t))
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}
