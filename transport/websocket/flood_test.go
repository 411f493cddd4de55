package websocket_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// from dials from one of the addresses of the loopback network.
func from(ip string) func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext
}

// silent connects and says nothing.
func silent(tb testing.TB, ip string, to net.Addr) net.Conn {
	tb.Helper()
	conn, err := from(ip)(soon(tb), "tcp", to.String())
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// closedWithin fails unless the peer closes conn in time. It returns after what.
func closedWithin(tb testing.TB, conn net.Conn, limit time.Duration) time.Duration {
	tb.Helper()
	start := time.Now()
	require.NoError(tb, conn.SetReadDeadline(start.Add(limit)))
	_, err := conn.Read(make([]byte, 1))
	require.Error(tb, err)
	require.NotErrorIs(tb, err, os.ErrDeadlineExceeded, "it is still open after %v", limit)
	return time.Since(start)
}

// staysOpen fails if the peer closes conn.
func staysOpen(tb testing.TB, conn net.Conn) {
	tb.Helper()
	require.NoError(tb, conn.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(tb, err, os.ErrDeadlineExceeded)
}

func TestWhoeverIsSlowInTheHandshakeIsCut(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	const limit = 2 * time.Second
	l := listen(t, ca.Gateway(), websocket.Config{HandshakeTimeout: limit})
	agent, gateway := connect(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")})

	half := silent(t, "127.0.0.1", l.Addr())
	_, err := half.Write([]byte{22, 3, 1}) // the start of a ClientHello
	require.NoError(t, err)
	slow, err := (&tls.Dialer{Config: ca.Agent("agent-1")}).DialContext(soon(t), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = slow.Close() })
	_, err = io.WriteString(slow, "GET "+websocket.Path+" HTTP/1.1\r\n")
	require.NoError(t, err)
	// What keeps sending is not quick either.
	go func() {
		for {
			if _, err := io.WriteString(slow, "X-A: b\r\n"); err != nil {
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	}()
	for _, conn := range []net.Conn{silent(t, "127.0.0.1", l.Addr()), half, slow} {
		closedWithin(t, conn, limit+patience)
	}
	carries(t, agent, gateway)
}

func TestASourceCannotHaveMoreThanMaxHandshakes(t *testing.T) {
	ca := testca.New(t)
	var log syncBuffer
	l := listen(t, ca.Gateway(), websocket.Config{
		MaxHandshakes: 3, MaxHandshakesPerSource: 3, HandshakeTimeout: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	for range 5 { // tunnels are no handshakes
		connect(t, l, d)
	}
	inside := []net.Conn{silent(t, "127.0.0.1", l.Addr()), silent(t, "127.0.0.1", l.Addr()), silent(t, "127.0.0.1", l.Addr())}
	for range 10 {
		closedWithin(t, silent(t, "127.0.0.1", l.Addr()), patience)
	}
	for _, conn := range inside {
		staysOpen(t, conn)
	}
	_, err := d.Dial(soon(t), urlOf(l.Addr()))
	require.ErrorContains(t, err, "handshakes")
	for _, want := range []string{"Config.MaxHandshakes", "limit=3", "per_source=3", "from=127.0.0.1/32"} {
		require.Contains(t, log.String(), want)
	}
	require.Equal(t, 1, strings.Count(log.String(), "MaxHandshakes"), "a flood does not fill the log")
	_ = inside[0].Close()
	require.Eventually(t, func() bool {
		m, err := d.Dial(soon(t), urlOf(l.Addr()))
		if err == nil {
			t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
		}
		return err == nil
	}, patience, 10*time.Millisecond, "there is room again")
}

func TestWhenAllPlacesAreTakenTheOldestHandshakeLosesItsOwn(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{MaxHandshakes: 4, HandshakeTimeout: time.Minute})
	one := silent(t, "127.0.0.4", l.Addr())
	flood := []net.Conn{silent(t, "127.0.0.2", l.Addr()), silent(t, "127.0.0.2", l.Addr()), silent(t, "127.0.0.2", l.Addr())}
	agent, gateway := connect(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), NetDial: from("127.0.0.3")})
	carries(t, agent, gateway)
	closedWithin(t, flood[0], patience)
	for _, conn := range []net.Conn{one, flood[1], flood[2]} {
		staysOpen(t, conn)
	}
}

func TestASourceWithTooManyHandshakesWaitsAndDelaysNobodyElse(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{MaxHandshakes: 10, MaxHandshakesPerSource: 2, HandshakeTimeout: time.Minute})
	flood := make([]net.Conn, 0, 10)
	for range 10 {
		flood = append(flood, silent(t, "127.0.0.2", l.Addr()))
	}
	for _, conn := range flood {
		staysOpen(t, conn)
	}
	closedWithin(t, silent(t, "127.0.0.2", l.Addr()), patience)

	// Another source is served although all places are taken.
	d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), NetDial: from("127.0.0.3")}
	agent, gateway := connect(t, l, d)
	carries(t, agent, gateway)
	closedWithin(t, flood[9], patience) // the newest of the flood made room
	staysOpen(t, flood[8])

	// When those before it are gone, the one that waits has its turn.
	waiting := make(chan error, 1)
	ctx := soon(t)
	go func() {
		m, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-2"), NetDial: from("127.0.0.2")}).Dial(ctx, urlOf(l.Addr()))
		if err == nil {
			err = m.CloseWithError(transport.NoError, "")
		}
		waiting <- err
	}()
	for _, conn := range flood {
		_ = conn.Close()
	}
	require.NoError(t, eventually(t, waiting, "the dial that waited"))
}

func TestManyAgentsOfOneSourceConnectAtOnce(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{MaxHandshakesPerSource: 4, HandshakeTimeout: patience})
	agent := ca.Agent("agent-1")
	ctx := soon(t)
	var agents sync.WaitGroup
	for range 100 {
		agents.Go(func() {
			d := &websocket.Dialer{TLSClientConfig: agent, Config: websocket.Config{HandshakeTimeout: patience}}
			m, err := d.Dial(ctx, urlOf(l.Addr()))
			if assert.NoError(t, err) {
				assert.NoError(t, m.CloseWithError(transport.NoError, ""))
			}
		})
	}
	agents.Wait()
}

func TestAGuardedServerLimitsHandshakesAndNothingElse(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	l := websocket.NewListener(websocket.Config{MaxHandshakes: 2, MaxHandshakesPerSource: 2, HandshakeTimeout: 3 * time.Second})
	t.Cleanup(func() { _ = l.Close() })
	routes := http.NewServeMux()
	routes.Handle(websocket.Path, l)
	release := make(chan struct{})
	routes.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "slowly")
	})
	type key struct{}
	tlsConfig := ca.Gateway()
	tlsConfig.ClientAuth = tls.VerifyClientCertIfGiven
	server := &http.Server{
		TLSConfig: tlsConfig, Handler: routes,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "kept") },
	}
	routes.HandleFunc("/context", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Context().Value(key{}).(string))
	})
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	guarded := l.Guard(server, socket)
	go func() { served <- server.ServeTLS(guarded, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	base := urlOf(socket.Addr())

	// More requests than MaxHandshakes, slower than HandshakeTimeout.
	var answers []*http.Response
	for i := range 5 {
		rt := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: i%2 == 0}
		t.Cleanup(rt.CloseIdleConnections)
		r, err := http.NewRequestWithContext(soon(t), http.MethodGet, base+"/slow", nil)
		require.NoError(t, err)
		w, err := rt.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, 1+(i+1)%2, w.ProtoMajor)
		answers = append(answers, w)
	}
	agent, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(soon(t), base)
	require.NoError(t, err)
	t.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "") })
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	one, two := silent(t, "127.0.0.1", socket.Addr()), silent(t, "127.0.0.1", socket.Addr())
	closedWithin(t, silent(t, "127.0.0.1", socket.Addr()), patience)
	closedWithin(t, one, patience)
	closedWithin(t, two, patience)
	close(release)
	for _, w := range answers {
		text, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		require.Equal(t, "slowly", string(text))
		require.NoError(t, w.Body.Close())
	}
	carries(t, agent, gateway)
	_, text := request(t, &tls.Config{RootCAs: ca.Pool()}, base, func(r *http.Request) { r.URL.Path = "/context"; r.Header.Del("Sec-WebSocket-Protocol") })
	require.Equal(t, "kept", text)
	w, _ := request(t, ca.Agent("agent-1"), base, func(r *http.Request) { r.Header.Set("X-Large", strings.Repeat("x", 32<<10)) })
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, w.StatusCode)
}

func TestWhoeverWaitsForItsTurnDoesSoWithinTheHandshakeTimeout(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{MaxHandshakesPerSource: 1, HandshakeTimeout: time.Second})
	conns := make([]net.Conn, 0, 40) // one after the other they would take 40 s
	for range cap(conns) {
		conns = append(conns, silent(t, "127.0.0.1", l.Addr()))
	}
	deadline := time.Now().Add(patience)
	for _, conn := range conns {
		closedWithin(t, conn, time.Until(deadline))
	}
}

func TestCloseEndsWhatWaitsForItsTurn(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{MaxHandshakesPerSource: 1, HandshakeTimeout: time.Minute})
	conns := []net.Conn{silent(t, "127.0.0.1", l.Addr()), silent(t, "127.0.0.1", l.Addr()), silent(t, "127.0.0.1", l.Addr())}
	staysOpen(t, conns[2])
	require.NoError(t, l.Close())
	for _, conn := range conns {
		closedWithin(t, conn, patience)
	}
}
