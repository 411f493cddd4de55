package websocket_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
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

	tlsConfig := ca.Gateway()
	tlsConfig.ClientAuth = tls.VerifyClientCertIfGiven
	server := &http.Server{Handler: routes, TLSConfig: tlsConfig}
	defer func() { _ = server.Close() }()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Print(err)
		return
	}
	gateway := "https://" + socket.Addr().String()
	socket = tunnels.Guard(server, socket)
	go func() { _ = server.ServeTLS(socket, "", "") }()

	// The agent asks; the gateway answers.
	go func() {
		ctx := context.Background()
		agent, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(ctx, gateway)
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

// A load balancer with a public certificate ends the TLS and forwards the WebSocket
// over plain HTTP; agent and gateway speak mutual TLS inside it.
func ExampleDialer_loadBalancer() {
	ca := exampleCA()
	l, err := websocket.Listen("127.0.0.1:0", nil, websocket.Config{
		InnerTLS:       ca.Gateway(),
		AllowPlainHTTP: true,
	})
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = l.Close() }()

	d := &websocket.Dialer{
		TLSClientConfig: ca.Agent("agent-1"), // for the gateway
		OuterTLS:        &tls.Config{},       // for the balancer: the roots of the system
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := d.Dial(ctx, "https://balancer.example.com")
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
