package mem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/outgate/outgate/transport"
)

const (
	defaultName       = "gateway"
	defaultMaxStreams = 1024
	defaultWindow     = 256 << 10
	defaultBacklog    = 128
)

var _ transport.Listener = (*Listener)(nil)

// Listener takes connections from the Dialers that name it. The zero value is
// ready. Its fields must not change after the first call of a method, its own or
// a Dialer's. All methods may be called concurrently.
type Listener struct {
	// Name is the common name in the gateway's certificate and the host in its
	// address. Empty means "gateway".
	Name string

	// MaxStreams is how many streams each side of a connection may have open
	// towards the other. OpenStream waits at the limit. Zero means 1024.
	MaxStreams int

	// Window is how many bytes each direction of a stream holds between a Write
	// and the Read of the peer. Write waits when it is full.
	// Zero means 256 KiB (262144).
	Window int

	// Backlog is how many connections may wait for Accept. Dial waits when it
	// is full. Zero means 128.
	Backlog int

	carriers

	mu      sync.Mutex
	config  *config // nil before the first use
	waiting []*Mux  // dialed, not yet accepted
	dialed  int     // connections so far; numbers the addresses
	closed  bool
	changed signal // waiting or closed changed
}

// config is a Listener's configuration with the defaults applied.
type config struct {
	name                        string
	maxStreams, window, backlog int
}

// Accept returns the next connection. ctx bounds the wait; its cause is what
// Accept then returns. A connection that ended while it waited is passed over.
func (l *Listener) Accept(ctx context.Context) (transport.Mux, error) {
	for {
		m, changed, err := l.next(ctx)
		if err != nil {
			return nil, err
		}
		if m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// next takes the first live connection that waits. When there is none it returns
// the channel that closes on the next change.
func (l *Listener) next(ctx context.Context) (*Mux, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.freezeConfig(); err != nil {
		return nil, nil, err
	}
	if l.closed {
		return nil, nil, fmt.Errorf("mem: accept: %w", net.ErrClosed)
	}
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	for len(l.waiting) > 0 {
		m := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		l.changed.notify()
		if m.ctx.Err() == nil {
			return m, nil, nil
		}
	}
	return nil, l.changed.wait(), nil
}

// Addr is the address of the listener. Its network is "mem".
func (l *Listener) Addr() net.Addr {
	return addr(cmp.Or(l.Name, defaultName) + ":443")
}

// Close stops accepting. Connections that wait for Accept end with the code
// Draining; accepted ones live on. A later Dial fails with the code Refused.
func (l *Listener) Close() error {
	l.mu.Lock()
	waiting := l.waiting
	l.waiting, l.closed = nil, true
	l.changed.notify()
	l.mu.Unlock()
	for _, m := range waiting {
		_ = m.CloseWithError(transport.Draining, "listener closed") // never fails
	}
	return nil
}

// connect makes a connection for d and hands its other side to Accept. It waits
// while the backlog is full.
func (l *Listener) connect(ctx context.Context, d *Dialer) (*Mux, error) {
	for {
		m, changed, err := l.tryConnect(ctx, d)
		if m != nil || err != nil {
			return m, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// tryConnect returns the channel that closes on the next change when the backlog
// is full.
func (l *Listener) tryConnect(ctx context.Context, d *Dialer) (*Mux, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cfg, err := l.freezeConfig()
	switch {
	case err != nil:
		return nil, nil, err
	case l.closed:
		return nil, nil, fmt.Errorf("mem: dial %s: %w", l.Addr(), transport.Refused)
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("mem: dial %s: %w", l.Addr(), context.Cause(ctx))
	case len(l.waiting) >= cfg.backlog:
		return nil, l.changed.wait(), nil
	}
	l.dialed++
	dialed, accepted := connect(cfg, d, l.dialed, &l.carriers, &d.carriers)
	l.waiting = append(l.waiting, accepted)
	l.changed.notify()
	return dialed, nil, nil
}

// freezeConfig applies the defaults on the first call.
func (l *Listener) freezeConfig() (*config, error) {
	if l.config != nil {
		return l.config, nil
	}
	if l.MaxStreams < 0 || l.Window < 0 || l.Backlog < 0 {
		return nil, errors.New("mem: a limit of the Listener is negative; leave it zero for its default")
	}
	l.config = &config{
		name:       cmp.Or(l.Name, defaultName),
		maxStreams: cmp.Or(l.MaxStreams, defaultMaxStreams),
		window:     cmp.Or(l.Window, defaultWindow),
		backlog:    cmp.Or(l.Backlog, defaultBacklog),
	}
	return l.config, nil
}
