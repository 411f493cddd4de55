package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/outgate/outgate/transport"
)

var (
	_ transport.Listener = (*Listener)(nil)
	_ http.Handler       = (*Listener)(nil)
)

// Listener takes the tunnels of agents. It is the http.Handler that upgrades
// their requests and the transport.Listener that returns the connections.
//
// Mounted in a server of the caller, that server must speak HTTP/1.1 on this
// route, ask for client certificates (tls.VerifyClientCertIfGiven if other
// routes do without), verify them against the right authority, and should limit
// handshakes and headers: [Listener.Guard] does. The Listener itself refuses requests
// without a verified certificate, over a resumed TLS session, below TLS 1.3, or
// from a browser. Shutdown and Close of that server neither wait for tunnels nor
// end them; the connections that Accept returned do that.
type Listener struct {
	cfg      Config
	log      *slog.Logger
	innerTLS *tls.Config // for the agents, or nil if the TLS of the request is
	server   *server     // if it owns its socket

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	places chan struct{} // one for each connection in handshake or backlog
	queue  chan session

	mu       sync.Mutex
	closed   bool
	handlers sync.WaitGroup // requests that may still put into queue
}

// NewListener returns a Listener to mount at [Path]. When cfg cannot work, Accept
// says why and requests are refused.
func NewListener(cfg Config) *Listener {
	cfg = cfg.withDefaults(5 * time.Second)
	l := &Listener{
		cfg:    cfg,
		places: make(chan struct{}, cfg.Backlog),
		queue:  make(chan session, cfg.Backlog),
		log:    quietLog(cfg.Logger, 20),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	if err := l.setInnerTLS(); err != nil {
		l.closed = true
		l.cancel(err)
	}
	return l
}

func (l *Listener) setInnerTLS() (err error) {
	switch {
	case l.cfg.InnerTLS != nil:
		l.innerTLS, err = serverTLS("Config.InnerTLS", l.cfg.InnerTLS, subprotocols(l.cfg.protocols(true))...)
	case l.cfg.AllowPlainHTTP:
		err = errors.New("websocket: Config.AllowPlainHTTP needs Config.InnerTLS, or nobody would be authenticated")
	}
	return err
}

// ServeHTTP makes a tunnel of the request and returns when it waits for Accept.
// What cannot become one is answered with a text that says what to change.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !l.enter() {
		later(w)
		l.refuse(w, r, &refusal{http.StatusServiceUnavailable, "the gateway takes no more tunnels"})
		return
	}
	defer l.handlers.Done()
	if no := l.admit(r); no != nil {
		l.refuse(w, r, no)
		return
	}
	select {
	case l.places <- struct{}{}:
	default:
		later(w)
		l.refuse(w, r, &refusal{
			http.StatusServiceUnavailable,
			fmt.Sprintf("%d tunnels wait to be accepted, Config.Backlog allows no more", cap(l.places)),
		})
		return
	}
	m, err := l.upgrade(w, r) //nolint:contextcheck // the connection outlives the request
	welcome(r)
	if err != nil {
		<-l.places
		l.log.Warn("websocket: handshake failed", "remote", r.RemoteAddr, "error", err)
		return
	}
	l.queue <- m // has room: whoever is in it holds a place
}

// later asks an agent to come back within seconds, each at another time.
func later(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(5)))
}

// enter registers a request unless the Listener is closed.
func (l *Listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.handlers.Add(1)
	return true
}

func (l *Listener) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	l.log.LogAttrs(r.Context(), slog.LevelInfo, "websocket: request refused",
		slog.String("remote", r.RemoteAddr), slog.Int("status", no.status), slog.String("reason", no.reason))
	http.Error(w, no.reason, no.status)
}

// upgrade makes a connection that is ready for streams.
func (l *Listener) upgrade(w http.ResponseWriter, r *http.Request) (session, error) {
	until := l.handshakeDeadline(r)
	hijacker := &hijacker{ResponseWriter: w}
	speaks := l.cfg.protocols(l.innerTLS != nil)
	ws, err := websocket.Accept(hijacker, r, &websocket.AcceptOptions{Subprotocols: subprotocols(speaks)})
	if err != nil {
		if hijacker.conn != nil {
			_ = hijacker.conn.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithDeadline(l.ctx, until)
	defer cancel()
	m, err := l.start(ctx, newWSCarrier(ws, hijacker.conn, l.cfg), ws.Subprotocol(), r.TLS)
	if err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	err = m.awaitReady(ctx, func() transport.Code {
		if l.ctx.Err() != nil {
			return transport.Draining
		}
		return transport.Timeout
	})
	return m, err
}

// start begins what the subprotocol says.
func (l *Listener) start(ctx context.Context, ws *wsCarrier, subprotocol string, state *tls.ConnectionState) (session, error) {
	speaks, ok := agreed(l.cfg.protocols(l.innerTLS != nil), subprotocol)
	if !ok {
		return nil, fmt.Errorf("the WebSocket library chose the subprotocol %q", subprotocol)
	}
	if l.innerTLS == nil {
		return speaks.start(ws, false, 0, *state, l.cfg)
	}
	inner, err := newInnerCarrier(ctx, ws, tls.Server, l.innerTLS, subprotocol)
	if err != nil {
		return nil, err
	}
	agent := inner.ConnectionState()
	if no := admitAgent(&agent); no != nil {
		return nil, errors.New(no.reason)
	}
	return speaks.start(inner, false, 0, agent, l.cfg)
}

// Accept implements transport.Listener.
func (l *Listener) Accept(ctx context.Context) (transport.Mux, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := l.ended(); err != nil {
			return nil, err
		}
		select {
		case m := <-l.queue:
			<-l.places
			if m.Context().Err() == nil { // else the agent has given up
				return m, nil
			}
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
	}
}

// ended returns the error of a Listener that accepts no more.
func (l *Listener) ended() error {
	if l.ctx.Err() == nil {
		return nil
	}
	return context.Cause(l.ctx)
}

// Addr implements transport.Listener. A Listener without a socket of its own
// returns its path, with the network "websocket".
func (l *Listener) Addr() net.Addr {
	if l.server != nil {
		return l.server.addr
	}
	return pathAddr{}
}

type pathAddr struct{}

func (pathAddr) Network() string { return "websocket" }
func (pathAddr) String() string  { return Path }

// Close implements transport.Listener. Connections that wait for Accept end with
// the code Draining, requests that come later are answered 503. A Listener from
// [Listen] closes its socket too.
func (l *Listener) Close() error {
	return l.closeWith(fmt.Errorf("websocket: listener closed: %w", net.ErrClosed))
}

// closeWith closes the Listener; Accept returns cause from then on.
func (l *Listener) closeWith(cause error) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel(cause)
	var err error
	if l.server != nil {
		err = l.server.close()
	}
	l.handlers.Wait()
	for {
		select {
		case m := <-l.queue:
			<-l.places
			_ = m.CloseWithError(transport.Draining, "the gateway takes no more tunnels")
		default:
			return err
		}
	}
}

// hijacker remembers the connection below a WebSocket.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = conn
	// The deadlines of the server were for the request.
	return conn, rw, conn.SetDeadline(time.Time{})
}
