//go:build linux

package websocket_test

import (
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// A password that must not appear in an error, nor what holds it in base64.
const proxyUser, proxyPassword = "agent", "canary-s3cr3t"

// tinyproxy runs one that speaks CONNECT.
func tinyproxy(tb testing.TB, values map[string]string) *url.URL {
	tb.Helper()
	address := freeAddress(tb)
	host, port, err := net.SplitHostPort(address)
	require.NoError(tb, err)
	all := map[string]string{"Host": host, "Port": port, "User": "", "Password": "", "Deny": ""}
	maps.Copy(all, values)
	start(tb, address, "tinyproxy", "-d", "-c", configure(tb, "tinyproxy.conf", all))
	return &url.URL{Scheme: "http", Host: address}
}

// microsocks runs one that speaks SOCKS5.
func microsocks(tb testing.TB, auth ...string) *url.URL {
	tb.Helper()
	address := freeAddress(tb)
	host, port, err := net.SplitHostPort(address)
	require.NoError(tb, err)
	start(tb, address, "microsocks", append([]string{"-i", host, "-p", port}, auth...)...)
	return &url.URL{Scheme: "socks5", Host: address}
}

// secure puts TLS in front of a proxy, with a certificate of ca.
func secure(tb testing.TB, ca *testca.CA, proxy *url.URL) *url.URL {
	tb.Helper()
	address := freeAddress(tb)
	start(tb, address, "haproxy", "-db", "-f", configure(tb, "haproxy-tls.cfg", map[string]string{
		"Listen": address, "Certificate": pemFile(tb, ca), "Backend": proxy.Host,
	}))
	return &url.URL{Scheme: "https", Host: address, User: proxy.User}
}

func TestATunnelCrossesRealProxies(t *testing.T) {
	t.Parallel()
	ca, corporate := testca.New(t), testca.New(t)
	withAuth := map[string]string{"User": proxyUser, "Password": proxyPassword}
	user := url.UserPassword(proxyUser, proxyPassword)
	proxyTLS := &tls.Config{RootCAs: corporate.Pool(), ServerName: "localhost"}
	for name, proxy := range map[string]func(testing.TB) *url.URL{
		"CONNECT":             func(tb testing.TB) *url.URL { return tinyproxy(tb, nil) },
		"CONNECT, a password": func(tb testing.TB) *url.URL { u := tinyproxy(tb, withAuth); u.User = user; return u },
		"CONNECT, TLS":        func(tb testing.TB) *url.URL { return secure(tb, corporate, tinyproxy(tb, nil)) },
		"CONNECT, TLS, password": func(tb testing.TB) *url.URL {
			u := tinyproxy(tb, withAuth)
			u.User = user
			return secure(tb, corporate, u)
		},
		"SOCKS5": func(tb testing.TB) *url.URL { return microsocks(tb) },
		"SOCKS5, a password": func(tb testing.TB) *url.URL {
			u := microsocks(tb, "-u", proxyUser, "-P", proxyPassword)
			u.User = user
			return u
		},
		"SOCKS5, names resolved by the proxy": func(tb testing.TB) *url.URL { u := microsocks(tb); u.Scheme = "socks5h"; return u },
	} {
		t.Run(name, func(t *testing.T) {
			u := proxy(t)
			for form, l := range map[string]*websocket.Listener{
				"outside": listen(t, ca.Gateway(), websocket.Config{}),
				"inside":  listen(t, anonymous(ca), websocket.Config{InnerTLS: ca.Gateway()}),
			} {
				d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: http.ProxyURL(u), ProxyTLS: proxyTLS}
				if form == "inside" {
					d.OuterTLS = outer(ca)
				}
				agent, gateway := connect(t, l, d)
				carries(t, agent, gateway)
				require.Equal(t, u.Host, agent.RemoteAddr().String(), "the carrier goes to the proxy")
				require.Equal(t, "agent-1", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
			}
		})
	}
}

func TestWhatARealProxyRefusesIsAProxyErrorWithTheFix(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	deny := filepath.Join(t.TempDir(), "allowed")
	require.NoError(t, os.WriteFile(deny, []byte("elsewhere\n"), 0o600))
	wrong := url.UserPassword(proxyUser, "canary-wrong")
	corporate := testca.New(t)
	for _, c := range []struct {
		name  string
		proxy func() *url.URL
		code  error
		says  string
	}{
		{"no password", func() *url.URL {
			return tinyproxy(t, map[string]string{"User": proxyUser, "Password": proxyPassword})
		}, transport.Denied, "user and password"},
		{"a wrong password", func() *url.URL {
			u := tinyproxy(t, map[string]string{"User": proxyUser, "Password": proxyPassword})
			u.User = wrong
			return u
		}, transport.Denied, "user and password"},
		{"a gateway that it does not allow", func() *url.URL {
			return tinyproxy(t, map[string]string{"Deny": deny})
		}, transport.Denied, "allow CONNECT to " + l.Addr().String()},
		{"SOCKS5, no password", func() *url.URL {
			return microsocks(t, "-u", proxyUser, "-P", proxyPassword)
		}, transport.Denied, "user and password"},
		{"SOCKS5, a wrong password", func() *url.URL {
			u := microsocks(t, "-u", proxyUser, "-P", proxyPassword)
			u.User = wrong
			return u
		}, transport.Denied, "user and password"},
		{"TLS with roots that do not know it", func() *url.URL {
			u := secure(t, corporate, tinyproxy(t, nil))
			u.User = wrong
			return u
		}, nil, "ProxyTLS"},
		{"TLS to one that has none", func() *url.URL {
			u := tinyproxy(t, nil)
			u.Scheme, u.User = "https", wrong
			return u
		}, transport.Timeout, "does it speak https"},
		{"no TLS to one that wants it", func() *url.URL {
			u := secure(t, corporate, tinyproxy(t, nil))
			u.Scheme, u.User = "http", wrong
			return u
		}, nil, "does it speak http"},
		{"HTTP to SOCKS5", func() *url.URL { u := microsocks(t); u.Scheme, u.User = "http", wrong; return u }, nil, "does it speak http"},
		{"SOCKS5 to HTTP", func() *url.URL { u := tinyproxy(t, nil); u.Scheme, u.User = "socks5", wrong; return u }, transport.Timeout, "does it speak socks5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: http.ProxyURL(c.proxy())}
			if errors.Is(c.code, transport.Timeout) {
				d.Config.HandshakeTimeout = time.Second
			}
			err := refusedByProxy(t, l, d)
			require.ErrorContains(t, err, c.says)
			if c.code != nil {
				require.ErrorIs(t, err, c.code)
			}
		})
	}
}
