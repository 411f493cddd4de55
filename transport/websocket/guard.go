package websocket

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Guard bounds what clients may cost a server before they have shown who they
// are. It returns the listener for the server's Serve or ServeTLS, to be used as it
// is, and must be called before that:
//
//	server := &http.Server{Handler: routes, TLSConfig: tlsConfig} // with l in the routes
//	socket, err := net.Listen("tcp", ":443")
//	…
//	err = server.ServeTLS(l.Guard(server, socket), "", "")
//
// A connection is in handshake until its tunnel is ready or, on other routes, until
// its first request has arrived with all of its header; what it does then is up to
// the server. Config.MaxHandshakes, Config.MaxHandshakesPerSource and
// Config.HandshakeTimeout limit that time; those who are beyond the limits see their
// connection closed.
//
// Fields of the server that are zero get the values that [Listen] uses:
// ReadHeaderTimeout is Config.HandshakeTimeout, MaxHeaderBytes 16 KiB, and ErrorLog
// goes to Config.Logger; a Handler that is nil gets the tunnel at [Path] and nothing
// else. Handler and ConnContext are wrapped. A write of the tunnel costs one system
// call on such a connection, instead of many.
//
// The listener takes over the socket. Serve and ServeTLS close it when they return.
func (l *Listener) Guard(server *http.Server, socket net.Listener) net.Listener {
	if server.ReadHeaderTimeout == 0 {
		server.ReadHeaderTimeout = l.cfg.HandshakeTimeout
	}
	if server.MaxHeaderBytes == 0 {
		server.MaxHeaderBytes = maxHeader
	}
	if server.ErrorLog == nil {
		server.ErrorLog = slog.NewLogLogger(l.log.Handler(), slog.LevelWarn)
	}
	above := server.ConnContext
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if above != nil {
			ctx = above(ctx, conn)
		}
		return context.WithValue(ctx, guestKey{}, guestOf(conn))
	}
	routes := server.Handler
	if routes == nil {
		tunnels := http.NewServeMux()
		tunnels.Handle(Path, l)
		routes = tunnels
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A tunnel stays a guest until ServeHTTP says otherwise.
		if !offered(r.Header, protocols(false)) && !offered(r.Header, protocols(true)) {
			welcome(r)
		}
		routes.ServeHTTP(w, r)
	})
	return newGate(socket, l.cfg)
}

type guestKey struct{}

// guestOf returns the guest below a connection of an http.Server, or nil.
func guestOf(conn net.Conn) *guest {
	for {
		if guest, ok := conn.(*guest); ok {
			return guest
		}
		above, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = above.NetConn()
	}
}

// handshakeDeadline is when the handshake for r must be over; from now on the
// caller sees to that.
func (l *Listener) handshakeDeadline(r *http.Request) time.Time {
	if guest, _ := r.Context().Value(guestKey{}).(*guest); guest != nil && guest.timer.Stop() {
		return guest.until
	}
	return time.Now().Add(l.cfg.HandshakeTimeout)
}

// welcome ends the limits of a guest for the connection of r.
func welcome(r *http.Request) {
	if guest, _ := r.Context().Value(guestKey{}).(*guest); guest != nil {
		guest.passed()
	}
}
