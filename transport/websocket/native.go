package websocket

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	nativemux "github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

// native is one connection over the native multiplexer.
type native struct{ *nativemux.Mux }

func newNative(c carrier, client bool, state tls.ConnectionState, cfg Config) native {
	return native{nativemux.New(&batches{carrier: c}, client, state, nativemux.Config{
		MaxStreams:   cfg.MaxStreams,
		MaxWindow:    cfg.MaxWindow,
		WindowBudget: cfg.WindowBudget,
		Budget:       cfg.Budget.shared(),
		WriteTimeout: cfg.WriteTimeout,
	})}
}

// awaitReady implements session.
func (m native) awaitReady(ctx context.Context, code func() transport.Code) error {
	select {
	case <-m.Ready():
		return nil
	case <-m.Context().Done():
	case <-ctx.Done():
	}
	// Also when it has ended: it may not be gone yet.
	_ = m.CloseWithError(code(), "the handshake did not finish")
	return context.Cause(m.Context())
}

// batches is a net.Conn of which each Write is a message.
type batches struct {
	carrier

	mu     sync.Mutex
	closed bool
	cut    *time.Timer // of SetReadDeadline
}

// Read implements net.Conn. Its errors say how the connection ended.
func (b *batches) Read(p []byte) (int, error) {
	n, err := b.carrier.Read(p)
	if err != nil {
		return n, closeCause(err)
	}
	return n, nil
}

// Write implements net.Conn.
func (b *batches) Write(p []byte) (int, error) {
	if err := b.WriteMessage(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn. The goodbye is a frame of the multiplexer.
func (b *batches) Close() error {
	b.mu.Lock()
	b.closed = true
	if b.cut != nil {
		b.cut.Stop() // it would keep the connection from the garbage collector
	}
	b.mu.Unlock()
	b.Cut()
	b.Release()
	return nil
}

// SetReadDeadline implements net.Conn. What a Read waits for when the deadline is
// over does not come any more, so there is one deadline, and it is final.
func (b *batches) SetReadDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut == nil && !b.closed {
		b.cut = time.AfterFunc(time.Until(t), b.Cut)
	}
	return nil
}

// SetWriteDeadline implements net.Conn. The multiplexer closes the connection
// instead.
func (b *batches) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (b *batches) SetDeadline(t time.Time) error { return b.SetReadDeadline(t) }

var _ net.Conn = (*batches)(nil)
