package websocket_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// A gateway that serves tunnels beside its other routes, on one port. Only the
// route of the tunnel demands a certificate.
func ExampleListener() {
	ca := exampleCA()

	tunnels := websocket.NewListener(websocket.Config{})
	defer func() { _ = tunnels.Close() }()
	routes := http.NewServeMux()
	routes.Handle(websocket.Path, tunnels)
	routes.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })

	server := httptest.NewUnstartedServer(routes)
	server.TLS = ca.Gateway()
	server.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	server.StartTLS()
	defer server.Close()

	// The agent asks; the gateway answers.
	go func() {
		ctx := context.Background()
		agent, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(ctx, server.URL)
		if err != nil {
			log.Print(err)
			return
		}
		stream, err := agent.OpenStream(ctx)
		if err != nil {
			log.Print(err)
			return
		}
		_, _ = io.WriteString(stream, "hello")
		_ = stream.Close()
	}()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := tunnels.Accept(ctx)
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = m.CloseWithError(transport.NoError, "done") }()
	stream, err := m.AcceptStream(ctx)
	if err != nil {
		log.Print(err)
		return
	}
	said, err := io.ReadAll(stream)
	_ = stream.Close()
	fmt.Printf("%s says %s, %v\n", m.ConnectionState().VerifiedChains[0][0].Subject.CommonName, said, err)
	// Output: agent-1 says hello, <nil>
}

// A gateway that owns its port.
func ExampleListen() {
	ca := exampleCA()
	l, err := websocket.Listen("127.0.0.1:0", ca.Gateway(), websocket.Config{MaxStreams: 256})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(l.Addr().Network(), l.Close())
	// Output: tcp <nil>
}

// An agent behind a proxy. The proxy sees the name of the gateway and ciphertext.
func ExampleDialer_proxy() {
	proxy, err := url.Parse("http://proxy.example.com:3128")
	if err != nil {
		log.Print(err)
		return
	}
	d := &websocket.Dialer{
		TLSClientConfig: exampleCA().Agent("agent-1"),
		Proxy:           http.ProxyURL(proxy), // or http.ProxyFromEnvironment
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := d.Dial(ctx, "https://gateway.example.com")
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = m.CloseWithError(transport.NoError, "done") }()
}

// exampleCA is a throw-away authority; a product has its own.
func exampleCA() *testca.CA { return testca.New(exampleTB{}) }

type exampleTB struct{ testing.TB }

func (exampleTB) Helper()                           {}
func (exampleTB) Fatalf(format string, args ...any) { log.Printf(format, args...) }
