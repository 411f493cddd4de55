package transport

import (
	"context"
	"crypto/tls"
	"net"
)

// Mux is one authenticated connection that carries many streams. Both sides
// may open streams. All methods may be called concurrently.
type Mux interface {
	// OpenStream opens a stream to the peer. It does not wait for the peer:
	// the peer's AcceptStream may not return until the first Write, CloseWrite,
	// Close or Reset on the new stream, so the opener speaks first.
	//
	// OpenStream blocks while the peer's limit on streams is reached; ctx
	// bounds the wait and the cause of ctx is what it then returns. After the
	// Mux ended it returns the *CloseError of [Mux.Context].
	OpenStream(ctx context.Context) (Stream, error)

	// AcceptStream returns the next stream that the peer opened. Streams that
	// nobody accepts count against the limits of the connection.
	AcceptStream(ctx context.Context) (Stream, error)

	// ConnectionState is the TLS state of the connection. The peer's identity
	// is in its verified certificate and nowhere else.
	ConnectionState() tls.ConnectionState

	// LocalAddr and RemoteAddr are the addresses of the carrier. They are never
	// nil.
	LocalAddr() net.Addr
	RemoteAddr() net.Addr

	// CloseWithError ends the connection and all its streams at once. The peer
	// sees a *CloseError with this code and reason and Remote set. The reason
	// may be cut to 120 bytes. The first call wins; later ones return nil.
	// CloseWithError returns in bounded time, whatever the peer does, and after
	// it returned the Mux owns no goroutine that waits for the peer.
	CloseWithError(code Code, reason string) error

	// Context ends when the connection ends, whoever ended it.
	// context.Cause then returns a *CloseError.
	Context() context.Context
}

// Stream is one conversation inside a [Mux]. It passes the net.Conn suite of
// golang.org/x/net/nettest.
//
// Read returns io.EOF only when the peer ended its direction with CloseWrite or
// Close and everything it wrote was read. It returns a *[StreamError] after a
// reset and a *[CloseError] when the connection under the stream ended; bytes
// that had arrived before are delivered first where the carrier keeps them.
//
// Deadlines work as those of net.Conn: they bound pending and future calls, can
// be moved and cleared, and satisfy errors.Is(err, os.ErrDeadlineExceeded). A
// Write that timed out reports how many bytes will still reach the peer. A Read
// or Write after the local Close returns an error that matches net.ErrClosed.
//
// Close ends this side's direction as CloseWrite does and stops reading: data
// that arrives later is thrown away, and the peer's Write returns a *StreamError
// with code Canceled. A Close that interrupts a Write of this side resets the
// stream instead, since what was sent is incomplete. Close does not wait for the
// peer. A stream must be closed or reset by its user, also after errors.
type Stream interface {
	net.Conn

	// CloseWrite ends this side's direction. The peer reads io.EOF after all
	// data; Read on this side goes on. A later Write fails; a second CloseWrite
	// does nothing. Like Close, one that interrupts a Write resets the stream.
	CloseWrite() error

	// Reset ends both directions at once. Data in flight may be lost. The
	// peer's pending and future Read and Write return a *StreamError with this
	// code and Remote set; local ones return it with Remote unset. Reset after
	// Close, or a second Reset, does nothing and returns nil.
	Reset(code Code) error
}

// Dialer connects to a gateway. An agent holds one.
type Dialer interface {
	// Dial connects to the gateway at a base URL such as
	// "https://gateway.example.com:8443"; the transport adds its own path.
	// It returns after the peers have authenticated each other. ctx bounds the
	// dial only, not the life of the Mux.
	Dial(ctx context.Context, gateway string) (Mux, error)
}

// Listener takes connections from agents. A gateway serves one or more.
type Listener interface {
	// Accept returns the next authenticated connection. A connection whose
	// handshake fails is dropped and never surfaces here. After Close it
	// returns an error that matches net.ErrClosed.
	Accept(ctx context.Context) (Mux, error)

	// Addr is the address the listener is reached at. It is never nil.
	Addr() net.Addr

	// Close stops accepting and ends connections that were not yet accepted.
	// Accepted ones live on.
	Close() error
}
