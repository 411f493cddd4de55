package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// server is the HTTP server of a Listener that owns its socket.
type server struct {
	http *http.Server
	addr net.Addr
	done chan struct{} // closed when Serve has returned

	closing sync.Once
	err     error
}

// Listen listens on a TCP address and serves tunnels and nothing else. The
// tlsConfig needs the gateway's certificate and, in ClientCAs, the authority of
// the agents; it is copied, and the copy demands TLS 1.3 and a verified client
// certificate and issues no session tickets.
func Listen(address string, tlsConfig *tls.Config, cfg Config) (*Listener, error) {
	tlsConfig, err := serverTLS(tlsConfig)
	if err != nil {
		return nil, err
	}
	socket, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	l := NewListener(cfg)
	routes := http.NewServeMux()
	routes.Handle(Path, l)
	l.server = &server{
		addr: socket.Addr(),
		done: make(chan struct{}),
		http: &http.Server{
			Handler:           routes,
			ReadHeaderTimeout: 5 * time.Second, // and of the TLS handshake
			IdleTimeout:       5 * time.Second,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(l.cfg.Logger.Handler(), slog.LevelWarn),
			// A map that is not nil keeps HTTP/2 off, which cannot be hijacked.
			TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		},
	}
	go l.serve(tls.NewListener(corkListener{socket}, tlsConfig))
	return l, nil
}

// serverTLS returns a copy of c for a socket that serves tunnels only.
func serverTLS(c *tls.Config) (*tls.Config, error) {
	switch {
	case c == nil || len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil:
		return nil, errors.New("websocket: the TLS configuration has no certificate for the gateway")
	case c.ClientCAs == nil && c.GetConfigForClient == nil:
		return nil, errors.New("websocket: the TLS configuration has no ClientCAs: set them to the authority of the agents, " +
			"or every certificate of a public authority could connect")
	}
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.SessionTicketsDisabled = true
	c.NextProtos = []string{"http/1.1"}
	c.DynamicRecordSizingDisabled = true
	return c, nil
}

// serve runs until the Listener is closed or the socket fails.
func (l *Listener) serve(socket net.Listener) {
	err := l.server.http.Serve(socket)
	close(l.server.done)
	if !errors.Is(err, http.ErrServerClosed) {
		l.cancel(fmt.Errorf("websocket: listener: %w", err))
	}
}

// close stops the server and waits for it. Tunnels are no longer its business.
func (s *server) close() error {
	s.closing.Do(func() {
		s.err = s.http.Close()
		<-s.done
	})
	return s.err
}

// corkListener makes connections that a wsCarrier can cork.
type corkListener struct{ net.Listener }

func (l corkListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cork{Conn: conn}, nil
}
