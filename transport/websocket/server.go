package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
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
// certificate and issues no session tickets. So does what its GetConfigForClient
// returns.
//
// With Config.InnerTLS those demands are for that one, and tlsConfig is for the
// outer TLS, as the caller likes it; with Config.AllowPlainHTTP nil is plain HTTP.
func Listen(address string, tlsConfig *tls.Config, cfg Config) (*Listener, error) {
	l := NewListener(cfg)
	if err := l.ended(); err != nil {
		return nil, err
	}
	tlsConfig, err := l.outerTLS(tlsConfig)
	if err != nil {
		return nil, err
	}
	socket, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	web := &http.Server{
		IdleTimeout: l.cfg.HandshakeTimeout,
		// A map that is not nil keeps HTTP/2 off, which cannot be hijacked.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	l.server = &server{http: web, addr: socket.Addr(), done: make(chan struct{})}
	socket = l.Guard(web, socket)
	if tlsConfig != nil {
		socket = tls.NewListener(socket, tlsConfig)
	}
	go l.serve(socket)
	return l, nil
}

// outerTLS returns what the socket of the Listener speaks, nil for plain HTTP.
func (l *Listener) outerTLS(c *tls.Config) (*tls.Config, error) {
	switch {
	case l.innerTLS == nil:
		return serverTLS("the TLS configuration", c, http1)
	case c != nil:
		c = c.Clone()
		c.NextProtos = []string{http1}
		c.DynamicRecordSizingDisabled = true
		return c, nil
	case !l.cfg.AllowPlainHTTP:
		return nil, errors.New("websocket: no TLS configuration: if a load balancer in front of the socket ends the TLS, set Config.AllowPlainHTTP")
	}
	return nil, nil
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
