package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

// gateway is a whole gateway: one HTTPS port for registration, renewal and the
// tunnel by WebSocket, one UDP port for the tunnel by QUIC.
type gateway struct {
	authority *pki.Authority
	tunnel    *tunnel.Gateway
	url       string
	quicURL   string
	pin       pki.Pin

	https   *http.Server
	serving sync.WaitGroup
}

func startGateway(log *slog.Logger) (*gateway, error) {
	signer, cert, err := pki.NewCA("quickstart")
	if err != nil {
		return nil, err
	}
	authority := &pki.Authority{Signer: signer, Certificate: cert, Store: new(pki.MemoryStore), Logger: log}

	// Whoever comes to the HTTPS port without a certificate can register and
	// nothing else; at the QUIC port he gets no answer.
	httpsTLS, err := authority.ServerTLS(tls.VerifyClientCertIfGiven, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	quicTLS, err := authority.ServerTLS(tls.RequireAndVerifyClientCert, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	udp, err := quic.Listen("127.0.0.1:0", quicTLS, quic.ListenConfig{Logger: log})
	if err != nil {
		tcp.Close()
		return nil, err
	}
	web := websocket.NewListener(websocket.Config{Logger: log})
	routes := http.NewServeMux()
	routes.Handle("/outgate/v1/", pki.Handler(authority, pki.HandlerConfig{Logger: log}))
	routes.Handle(websocket.Path, web)

	g := &gateway{
		authority: authority,
		tunnel:    &tunnel.Gateway{Identify: authority.Identify, Logger: log},
		url:       "https://" + tcp.Addr().String(),
		quicURL:   "https://" + udp.Addr().String(),
		pin:       pki.PinOf(cert),
		https: &http.Server{
			Handler:   routes,
			TLSConfig: httpsTLS,
			ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}
	guarded := web.Guard(g.https, tcp)
	g.serving.Go(func() { _ = g.https.ServeTLS(guarded, "", "") }) // until stop
	for _, ln := range []transport.Listener{web, udp} {
		g.serving.Go(func() { _ = g.tunnel.Serve(context.Background(), ln) }) // until stop
	}
	return g, nil
}

func (g *gateway) stop(ctx context.Context) error {
	// Also when ctx has ended: it then bounds the drain, not the cleaning up.
	err := g.tunnel.Shutdown(ctx)
	err = errors.Join(err, g.https.Close())
	g.serving.Wait()
	return err
}

// withAgent runs an agent while f runs, and f once it is connected.
func (g *gateway) withAgent(ctx context.Context, a *tunnel.Agent, f func(tunnel.Session) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		err := a.Run(context.WithoutCancel(ctx)) // until Shutdown, unless it cannot go on
		cancel(err)
		ended <- err
	}()
	s, err := g.tunnel.WaitSession(ctx, a.Name)
	if err == nil {
		err = f(s)
	}
	if current, lookup := g.tunnel.Session(a.Name); lookup == nil {
		defer func() { <-current.Context().Done() }() // so that the next agent is not taken for this one
	}
	stopErr := a.Shutdown(ctx)
	if runErr := <-ended; !errors.Is(runErr, tunnel.ErrAgentClosed) {
		err = errors.Join(err, fmt.Errorf("the agent ended: %w", runErr))
	}
	return errors.Join(err, stopErr)
}
