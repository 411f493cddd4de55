package websocket_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

func TestDialRefusesWhatCannotBeATunnelBeforeItConnects(t *testing.T) {
	ca := testca.New(t)
	agent := ca.Agent("agent-1")
	never := func(context.Context, string, string) (net.Conn, error) {
		t.Error("it connected")
		return nil, net.ErrClosed
	}
	for _, c := range []struct {
		name, url string
		dialer    websocket.Dialer
		says      string
	}{
		{"plain HTTP", "http://gateway.example", websocket.Dialer{TLSClientConfig: agent}, "https://"},
		{"plain WebSocket", "ws://gateway.example", websocket.Dialer{TLSClientConfig: agent}, "https://"},
		{"no scheme", "gateway.example:443", websocket.Dialer{TLSClientConfig: agent}, "https://"},
		{"no host", "https:///path", websocket.Dialer{TLSClientConfig: agent}, "no host"},
		{"not a URL", "https://[::1", websocket.Dialer{TLSClientConfig: agent}, "gateway URL"},
		{"a user", "https://me:secret@gateway.example", websocket.Dialer{TLSClientConfig: agent}, "remove the user"},
		{"a query", "https://gateway.example/?x=1", websocket.Dialer{TLSClientConfig: agent}, "remove the query"},
		{"no TLS configuration", "https://gateway.example", websocket.Dialer{}, "client certificate"},
		{"no certificate", "https://gateway.example", websocket.Dialer{TLSClientConfig: &tls.Config{}}, "client certificate"},
		{"a reserved header", "https://gateway.example", websocket.Dialer{TLSClientConfig: agent, Header: http.Header{"origin": {"x"}}}, "Origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.dialer.NetDial = never
			m, err := c.dialer.Dial(soon(t), c.url)
			require.Nil(t, m)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestAnAnswerThatIsNoTunnelIsAHandshakeError(t *testing.T) {
	ca := testca.New(t)
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    websocket.HandshakeError
		is      error
	}{
		{
			"denied", func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "no\x1b[31m such agent", http.StatusForbidden)
			},
			websocket.HandshakeError{Status: 403, Reason: "no [31m such agent"},
			transport.Denied,
		},
		{"overloaded, seconds", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, websocket.HandshakeError{Status: 503, RetryAfter: 17 * time.Second}, transport.Overloaded},
		{"overloaded, a date that has passed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")
			w.WriteHeader(http.StatusTooManyRequests)
		}, websocket.HandshakeError{Status: 429}, transport.Overloaded},
		{"nonsense in Retry-After", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "-99999999999999999999")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, websocket.HandshakeError{Status: 503}, transport.Overloaded},
		{
			"a website", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("hello ", 1000)) },
			websocket.HandshakeError{Status: 200, Reason: strings.Repeat("hello ", 20)},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, ca.Gateway(), c.handler)
			_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(soon(t), s.URL)
			var got *websocket.HandshakeError
			require.ErrorAs(t, err, &got)
			got.Reason = strings.TrimSuffix(got.Reason, "\n")
			require.Equal(t, strings.TrimSpace(c.want.Reason), strings.TrimSpace(got.Reason))
			got.Reason = c.want.Reason
			require.Equal(t, c.want, *got)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

func TestADialFollowsNoRedirect(t *testing.T) {
	ca := testca.New(t)
	elsewhere := serve(t, ca.Gateway(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect was followed")
	}))
	s := serve(t, ca.Gateway(), http.RedirectHandler(elsewhere.URL+websocket.Path, http.StatusTemporaryRedirect))
	_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(soon(t), s.URL)
	var refused *websocket.HandshakeError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusTemporaryRedirect, refused.Status)
	require.Contains(t, refused.Reason, elsewhere.URL)
}

func TestAGatewayThatSpeaksAnotherSubprotocolIsRefused(t *testing.T) {
	ca := testca.New(t)
	s := serve(t, ca.Gateway(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrade(w, r, "")
		if err == nil {
			_ = ws.CloseNow()
		}
	}))
	_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(soon(t), s.URL)
	require.ErrorContains(t, err, websocket.Subprotocol)
}

func TestAHandshakeErrorReadsWell(t *testing.T) {
	require.EqualError(t, &websocket.HandshakeError{Status: 503, Reason: "busy"},
		"the tunnel was answered with status 503 Service Unavailable: busy")
	require.EqualError(t, &websocket.HandshakeError{Status: 799}, "the tunnel was answered with status 799")
	assert.NotErrorIs(t, &websocket.HandshakeError{Status: 404}, transport.Denied)
}
