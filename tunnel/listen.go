package tunnel

import (
	"context"
	"net"
	"sync"

	"github.com/outgate/outgate/transport"
)

// Listen serves the streams of service as a net.Listener, for http.Serve and its
// like: no port is opened anywhere. The policy is asked as for [Agent.Handle].
//
// A stream waits for Accept until its opener gives up. The connections have the
// opener's subject in their RemoteAddr; [IncomingOf] tells more. Close refuses what
// waits and ends the service; accepted connections live on.
func (a *Agent) Listen(service string) (net.Listener, error) {
	l := &listener{
		service: service,
		streams: make(chan *Incoming),
		closed:  make(chan struct{}),
	}
	l.remove = func() { a.services.remove(service, l) }
	if err := a.Handle(service, l); err != nil {
		return nil, err
	}
	return l, nil
}

type listener struct {
	service string
	streams chan *Incoming
	remove  func()
	once    sync.Once
	closed  chan struct{}
}

var (
	_ net.Listener = (*listener)(nil)
	_ Handler      = (*listener)(nil)
)

// ServeStream hands in to Accept, which answers it.
func (l *listener) ServeStream(ctx context.Context, in *Incoming) {
	wait, cancel := context.WithDeadline(ctx, in.Deadline)
	defer cancel()
	select {
	case l.streams <- in:
		<-in.answered // Accept answers at once
	case <-l.closed:
		_ = in.Reject(transport.UnknownService, "the service has stopped")
	case <-wait.Done():
		_ = in.Reject(transport.Timeout, "nobody accepted the stream in time")
	}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case in := <-l.streams:
			stream, err := in.Accept(nil)
			if err != nil {
				continue // the opener is gone; the next one may not be
			}
			return stream, nil
		case <-l.closed:
			return nil, &net.OpError{Op: "accept", Net: "outgate", Addr: l.Addr(), Err: net.ErrClosed}
		}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.remove()
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr{network: "outgate", address: l.service} }
