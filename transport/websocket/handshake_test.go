package websocket_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// serve mounts h at the path of the tunnel in a TLS server of its own.
func serve(tb testing.TB, tlsConfig *tls.Config, h http.Handler) *httptest.Server {
	tb.Helper()
	routes := http.NewServeMux()
	routes.Handle(websocket.Path, h)
	routes.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	s := httptest.NewUnstartedServer(routes)
	s.TLS = tlsConfig
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	tb.Cleanup(s.Close)
	return s
}

// mount serves tunnels beside another route, as a product does that has one
// HTTPS port for everything.
func mount(tb testing.TB, ca *testca.CA, cfg websocket.Config) (*websocket.Listener, string) {
	tb.Helper()
	l := websocket.NewListener(cfg)
	tb.Cleanup(func() { _ = l.Close() })
	tlsConfig := ca.Gateway()
	tlsConfig.ClientAuth = tls.VerifyClientCertIfGiven
	return l, serve(tb, tlsConfig, l).URL
}

// request sends a well-formed request for a tunnel, changed by edit, and returns
// the answer.
func request(tb testing.TB, tlsConfig *tls.Config, gateway string, edit func(*http.Request)) (*http.Response, string) {
	tb.Helper()
	r, err := http.NewRequestWithContext(soon(tb), http.MethodGet, gateway+websocket.Path, nil)
	require.NoError(tb, err)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	r.Header.Set("Sec-WebSocket-Protocol", websocket.Subprotocol)
	if edit != nil {
		edit(r)
	}
	rt := &http.Transport{TLSClientConfig: tlsConfig}
	defer rt.CloseIdleConnections()
	w, err := rt.RoundTrip(r)
	require.NoError(tb, err)
	defer func() { _ = w.Body.Close() }()
	if w.StatusCode == http.StatusSwitchingProtocols {
		return w, ""
	}
	text, err := io.ReadAll(w.Body)
	require.NoError(tb, err)
	return w, string(text)
}

func TestAListenerRefusesWhatIsNotAnAgentAndSaysWhatToChange(t *testing.T) {
	ca := testca.New(t)
	anonymous := &tls.Config{RootCAs: ca.Pool()}
	agent := ca.Agent("agent-1")
	old := ca.Agent("agent-1")
	old.MinVersion, old.MaxVersion = 0, tls.VersionTLS12
	for _, c := range []struct {
		name   string
		tls    *tls.Config
		edit   func(*http.Request)
		status int
		says   string
	}{
		{"no certificate", anonymous, nil, http.StatusForbidden, "client certificate"},
		{"TLS 1.2", old, nil, http.StatusForbidden, "TLS 1.3"},
		{"an Origin", agent, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, http.StatusForbidden, "Origin"},
		{"the Origin of the gateway itself", agent, func(r *http.Request) { r.Header.Set("Origin", "https://"+r.URL.Host) }, http.StatusForbidden, "Origin"},
		{"a Cookie", agent, func(r *http.Request) { r.Header.Set("Cookie", "session=1") }, http.StatusForbidden, "Cookie"},
		{"no subprotocol", agent, func(r *http.Request) { r.Header.Del("Sec-WebSocket-Protocol") }, http.StatusBadRequest, websocket.Subprotocol},
		{"another subprotocol", agent, func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "outgate.smux.v9") }, http.StatusBadRequest, websocket.Subprotocol},
		{"no upgrade", agent, func(r *http.Request) { r.Header.Del("Upgrade"); r.Header.Del("Connection") }, http.StatusUpgradeRequired, "Upgrade"},
		{"not GET", agent, func(r *http.Request) { r.Method = http.MethodPost }, http.StatusMethodNotAllowed, "GET"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := websocket.NewListener(websocket.Config{})
			t.Cleanup(func() { _ = l.Close() })
			tlsConfig := ca.Gateway()
			tlsConfig.ClientAuth, tlsConfig.MinVersion = tls.VerifyClientCertIfGiven, tls.VersionTLS12
			w, text := request(t, c.tls, serve(t, tlsConfig, l).URL, c.edit)
			assert.Equal(t, c.status, w.StatusCode)
			assert.Contains(t, text, c.says)
			assert.LessOrEqual(t, len(text), 121, "an agent shows no more")
		})
	}
	t.Run("plain HTTP", func(t *testing.T) {
		l := websocket.NewListener(websocket.Config{})
		t.Cleanup(func() { _ = l.Close() })
		s := httptest.NewServer(l)
		t.Cleanup(s.Close)
		w, text := request(t, nil, s.URL, nil)
		assert.Equal(t, http.StatusForbidden, w.StatusCode)
		assert.Contains(t, text, "TLS")
	})
	t.Run("a resumed session", func(t *testing.T) {
		l := websocket.NewListener(websocket.Config{})
		t.Cleanup(func() { _ = l.Close() })
		tlsConfig := ca.Gateway()
		tlsConfig.SessionTicketsDisabled = false
		s := serve(t, tlsConfig, l)
		c := ca.Agent("agent-1")
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i, want := range []int{http.StatusBadRequest, http.StatusForbidden} {
			w, text := request(t, c, s.URL, func(r *http.Request) { r.Header.Del("Sec-WebSocket-Protocol") })
			assert.Equal(t, want, w.StatusCode, "request %d: %s", i, text)
			if i == 1 {
				assert.Contains(t, text, "tickets")
			}
		}
	})
}

func TestACertificateOfAnotherAuthorityDoesNotConnect(t *testing.T) {
	ca, foreign := testca.New(t), testca.New(t)
	d := &websocket.Dialer{TLSClientConfig: foreign.Agent("agent-1")}
	d.TLSClientConfig.RootCAs = ca.Pool() // it trusts the gateway; the gateway must not trust it

	l := listen(t, ca.Gateway(), websocket.Config{})
	_, err := d.Dial(soon(t), urlOf(l.Addr()))
	require.Error(t, err)

	_, mounted := mount(t, ca, websocket.Config{})
	_, err = d.Dial(soon(t), mounted)
	require.Error(t, err)

	d.TLSClientConfig = ca.Agent("agent-1")
	d.TLSClientConfig.RootCAs = foreign.Pool()
	_, err = d.Dial(soon(t), urlOf(l.Addr()))
	require.ErrorContains(t, err, "certificate", "an agent does not trust the gateway of another authority")
}

func TestListenDemandsWhatTheCallerForgot(t *testing.T) {
	ca := testca.New(t)
	tlsConfig := ca.Gateway()
	tlsConfig.ClientAuth, tlsConfig.MinVersion, tlsConfig.SessionTicketsDisabled = tls.NoClientCert, 0, false
	l := listen(t, tlsConfig, websocket.Config{})
	require.Equal(t, tls.NoClientCert, tlsConfig.ClientAuth, "the configuration of the caller is not changed")

	for name, c := range map[string]*tls.Config{
		"no certificate": {RootCAs: ca.Pool()},
		"TLS 1.2":        {RootCAs: ca.Pool(), Certificates: ca.Agent("agent-1").Certificates, MaxVersion: tls.VersionTLS12},
	} {
		conn, err := (&tls.Dialer{Config: c}).DialContext(soon(t), "tcp", l.Addr().String())
		if err == nil { // TLS 1.3 learns of a refused certificate when it reads
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		require.Error(t, err, name)
	}

	cache := tls.NewLRUClientSessionCache(1)
	for range 2 {
		c := ca.Agent("agent-1")
		c.ClientSessionCache = cache
		conn, err := (&tls.Dialer{Config: c}).DialContext(soon(t), "tcp", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		_, err = io.ReadAll(conn)
		require.NoError(t, err)
		require.False(t, conn.(*tls.Conn).ConnectionState().DidResume, "no session tickets")
		_ = conn.Close()
	}

	noCA := ca.Gateway()
	noCA.ClientCAs = nil
	for name, c := range map[string]*tls.Config{"nil": nil, "no certificate": {ClientCAs: ca.Pool()}, "no ClientCAs": noCA} {
		_, err := websocket.Listen("127.0.0.1:0", c, websocket.Config{})
		require.Error(t, err, name)
	}
	_, err := websocket.Listen(l.Addr().String(), ca.Gateway(), websocket.Config{})
	require.Error(t, err, "a port that is taken")
}

func TestWhatGetConfigForClientPicksDemandsAgentsToo(t *testing.T) {
	ca := testca.New(t)
	open := ca.Gateway()
	open.ClientAuth, open.MinVersion = tls.NoClientCert, 0
	foreign := ca.Gateway() // its ClientCAs are those of the system
	foreign.ClientCAs = nil
	for name, c := range map[string]struct {
		picked *tls.Config
		agent  bool // may connect
	}{"lets everybody in": {open, true}, "has no ClientCAs": {foreign, false}, "nothing": {nil, false}} {
		t.Run(name, func(t *testing.T) {
			base := &tls.Config{
				Certificates:       foreign.Certificates,
				GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.picked, nil },
			}
			for form, l := range map[string]*websocket.Listener{
				"outside": listen(t, base, websocket.Config{}),
				"inside":  listen(t, anonymous(ca), websocket.Config{InnerTLS: base}),
			} {
				d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}
				nobody := &websocket.Dialer{TLSClientConfig: &tls.Config{
					RootCAs:              ca.Pool(),
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
				}}
				if form == "inside" {
					d.OuterTLS, nobody.OuterTLS = outer(ca), outer(ca)
				}
				_, err := nobody.Dial(soon(t), urlOf(l.Addr()))
				require.Error(t, err, form)
				m, err := d.Dial(soon(t), urlOf(l.Addr()))
				require.Equal(t, c.agent, err == nil, "%s: %v", form, err)
				if err == nil {
					require.NoError(t, m.CloseWithError(transport.NoError, ""))
				}
			}
		})
	}
}

func TestAnOwnedSocketServesNothingElse(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	w, _ := request(t, ca.Agent("agent-1"), urlOf(l.Addr()), func(r *http.Request) { r.URL.Path = "/" })
	require.Equal(t, http.StatusNotFound, w.StatusCode)
	w, _ = request(t, ca.Agent("agent-1"), urlOf(l.Addr()), func(r *http.Request) {
		r.Header.Set("X-Large", strings.Repeat("x", 32<<10))
	})
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, w.StatusCode)
}

func TestOnePortServesTunnelsBesideOtherRoutes(t *testing.T) {
	ca := testca.New(t)
	l, gateway := mount(t, ca, websocket.Config{})
	require.Equal(t, "websocket", l.Addr().Network())
	require.Equal(t, websocket.Path, l.Addr().String())

	d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	for _, url := range []string{gateway, gateway + "/", "wss" + strings.TrimPrefix(gateway, "https")} {
		agent, err := d.Dial(soon(t), url)
		require.NoError(t, err, url)
		accepted, err := l.Accept(soon(t))
		require.NoError(t, err)
		carries(t, agent, accepted)
		require.Equal(t, "agent-1", accepted.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
		require.NoError(t, agent.CloseWithError(transport.NoError, ""))
		require.NoError(t, accepted.CloseWithError(transport.NoError, ""))
	}
	w, text := request(t, &tls.Config{RootCAs: ca.Pool()}, gateway, func(r *http.Request) { r.URL.Path = "/" })
	require.Equal(t, http.StatusOK, w.StatusCode)
	require.Equal(t, "hello", text)
}
