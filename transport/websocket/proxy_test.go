package websocket_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

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

// refusedByProxy dials through a proxy that does not let it, and checks what every
// error of that kind must be.
func refusedByProxy(tb testing.TB, l *websocket.Listener, d *websocket.Dialer) error {
	tb.Helper()
	proxy, err := d.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: l.Addr().String()}})
	require.NoError(tb, err)
	m, err := d.Dial(soon(tb), urlOf(l.Addr()))
	require.Nil(tb, m)
	var failed *websocket.ProxyError
	require.ErrorAs(tb, err, &failed)
	require.Equal(tb, proxy.Scheme+"://"+proxy.Host, failed.Proxy)
	text := fmt.Sprintf("%v %+v %#v", err, err, failed.Err)
	require.NotContains(tb, text, "canary")
	if proxy.User != nil {
		require.NotContains(tb, text, base64.StdEncoding.EncodeToString([]byte(proxy.User.String())))
	}
	return err
}

func TestTheEnvironmentNamesAProxyIfTheCallerWantsThat(t *testing.T) {
	// net/http reads the environment once, so each run needs a process of its own.
	const own = "OUTGATE_TEST_OWN_PROCESS"
	if os.Getenv(own) == "" {
		again := exec.CommandContext(soon(t), os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), own+"=yes")
		said, err := again.CombinedOutput()
		require.NoError(t, err, "%s", said)
		return
	}
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	u, asked := proxy(t, func(r *http.Request) int {
		if r.Header.Get("Proxy-Authorization") != "Basic bWU6cHc=" {
			return http.StatusProxyAuthRequired
		}
		r.Host = l.Addr().String() // it knows where gateway.test is
		return http.StatusOK
	})
	u.User = url.UserPassword("me", "pw")
	t.Setenv("HTTPS_PROXY", u.String())
	t.Setenv("NO_PROXY", "")
	tlsConfig := ca.Agent("agent-1")
	tlsConfig.ServerName = "localhost"
	d := &websocket.Dialer{TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment}
	agent, err := d.Dial(soon(t), "https://gateway.test") // a loopback address has no proxy
	require.NoError(t, err)
	t.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "") })
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	require.Equal(t, "CONNECT gateway.test:443", eventually(t, asked, "the proxy was asked"))
	carries(t, agent, gateway)
	require.NoError(t, gateway.CloseWithError(transport.NoError, ""))
}

func TestAProxyThatMisbehavesIsAProxyErrorWithoutItsPassword(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	const timeout = 300 * time.Millisecond
	answer := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, text)
		}
	}
	for _, c := range []struct {
		name, scheme string
		behave       func(net.Conn)
		code         error
		says         string
	}{
		{"stalls", "http", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, transport.Timeout, timeout.String()},
		{"stalls, SOCKS5", "socks5", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, transport.Timeout, timeout.String()},
		{"stalls, TLS", "https", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, transport.Timeout, timeout.String()},
		{"closes", "http", func(conn net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(conn)) }, nil, "closed the connection"},
		{"closes, SOCKS5", "socks5", func(conn net.Conn) { _, _ = io.ReadFull(conn, make([]byte, 4)) }, nil, "closed the connection"},
		{"answers garbage", "http", answer("\x00\x01\x02garbage garbage\r\n\r\n"), nil, "none of a proxy"},
		{"answers garbage, SOCKS5", "socks5", func(conn net.Conn) { _, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n") }, nil, "socks"},
		{"answers garbage, TLS", "https", answer("SSH-2.0-OpenSSH_9.2\r\n"), nil, "http://"},
		{"echoes", "http", func(conn net.Conn) { _, _ = io.Copy(conn, conn) }, nil, "none of a proxy"},
		{"echoes the password", "http", answer("Basic bWU6Y2FuYXJ5 me:canary\r\n\r\n"), nil, "none of a proxy"},
		{"a password in its refusal", "http", answer("HTTP/1.1 407 canary\r\nProxy-Authenticate: Basic realm=canary\r\nContent-Length: 6\r\n\r\ncanary"), transport.Denied, "user and password"},
		{"a header without end", "http", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(conn, "X-A: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, nil, "instead of an answer"},
		{"cannot reach the gateway", "http", answer("HTTP/1.1 502 Bad Gateway\r\n\r\n"), nil, "does not reach " + l.Addr().String()},
		{"is busy", "http", answer("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n"), transport.Overloaded, "does not reach"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			socket, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			done := make(chan struct{})
			t.Cleanup(func() { _ = socket.Close(); <-done })
			go func() {
				defer close(done)
				conn, err := socket.Accept()
				if err != nil {
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				c.behave(conn)
				_ = conn.Close()
			}()
			u := &url.URL{Scheme: c.scheme, Host: socket.Addr().String(), User: url.UserPassword("me", "canary")}
			d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: http.ProxyURL(u)}
			if errors.Is(c.code, transport.Timeout) {
				d.Config.HandshakeTimeout = timeout
			}
			err = refusedByProxy(t, l, d)
			require.ErrorContains(t, err, c.says)
			if c.code != nil {
				require.ErrorIs(t, err, c.code)
			}
		})
	}
	t.Run("is not there", func(t *testing.T) {
		socket, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, socket.Close())
		u := &url.URL{Scheme: "http", Host: socket.Addr().String(), User: url.UserPassword("me", "canary")}
		err = refusedByProxy(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: http.ProxyURL(u)})
		require.ErrorContains(t, err, "connect")
	})
}

func TestAProxyThatCannotBeIsRefusedWithoutItsPassword(t *testing.T) {
	ca := testca.New(t)
	for says, choose := range map[string]func(*http.Request) (*url.URL, error){
		"HTTPS_PROXY": func(*http.Request) (*url.URL, error) {
			return nil, errors.New(`invalid proxy address "http://me:canary@a b": invalid host`)
		},
		"use http, https or socks5": http.ProxyURL(&url.URL{Scheme: "ftp", Host: "proxy.test", User: url.UserPassword("me", "canary")}),
		"without a host":            http.ProxyURL(&url.URL{Scheme: "http", Opaque: "me:canary"}),
	} {
		d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Proxy: choose, NetDial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("it connected")
			return nil, net.ErrClosed
		}}
		_, err := d.Dial(soon(t), "https://gateway.test")
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "canary")
	}
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
