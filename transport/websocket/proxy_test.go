package websocket_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// proxy is a small HTTP proxy that knows CONNECT only.
func proxy(tb testing.TB, allow func(*http.Request) int) (*url.URL, <-chan string) {
	tb.Helper()
	asked := make(chan string, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		if status := allow(r); status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		target, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = target.Close() }()
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = client.Close() }()
		_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		ends := make(chan struct{}, 2)
		relay := func(dst io.Writer, src io.Reader) { _, _ = io.Copy(dst, src); ends <- struct{}{} }
		go relay(target, bufio.NewReader(buffered))
		go relay(client, target)
		<-ends
		_, _ = target.Close(), client.Close()
		<-ends
	}))
	tb.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(tb, err)
	return u, asked
}

func TestATunnelGoesThroughAProxyAndStaysMutualTLS(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	u, asked := proxy(t, func(r *http.Request) int {
		if r.Header.Get("Proxy-Authorization") != "Basic bWU6cHc=" {
			return http.StatusProxyAuthRequired
		}
		return http.StatusOK
	})
	u.User = url.UserPassword("me", "pw")
	agent, gateway := connect(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: http.ProxyURL(u)})
	require.Equal(t, "CONNECT "+l.Addr().String(), eventually(t, asked, "the proxy was asked"))
	carries(t, agent, gateway)
	require.Equal(t, "agent-1", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	require.Equal(t, u.Host, agent.RemoteAddr().String(), "the carrier goes to the proxy")

	u.User = url.UserPassword("me", "not the secret")
	_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: http.ProxyURL(u)}).Dial(soon(t), urlOf(l.Addr()))
	var refused *websocket.HandshakeError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusProxyAuthRequired, refused.Status)
	require.ErrorContains(t, err, "proxy http://"+u.Host)
	require.NotContains(t, err.Error(), "secret")
}

func TestTheEnvironmentNamesNoProxy(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	t.Setenv("HTTPS_PROXY", "http://proxy.test:3128")
	tlsConfig := ca.Agent("agent-1")
	tlsConfig.ServerName = "localhost"
	var dialled string
	d := &websocket.Dialer{TLSClientConfig: tlsConfig, NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled = address
		return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
	}}
	m, err := d.Dial(soon(t), "https://gateway.test") // a loopback address has no proxy anyway
	require.NoError(t, err)
	require.Equal(t, "gateway.test:443", dialled)
	require.NoError(t, m.CloseWithError(transport.NoError, ""))
}
