package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/transport"
)

// DialFunc opens a connection through an agent. It fits http.Transport.DialContext,
// pgconn.Config.DialFunc and most other drivers.
//
// The network is the service: "tcp" (also "tcp4" and "tcp6", which the agent treats
// as tcp), "unix", "http" or a product's own. The agent resolves names. An error is
// an *[OpenError]; the connection is a transport.Stream whose RemoteAddr is the
// address that the agent reached.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Join copies between a stream and any connection, in both directions, until both have
// ended, and closes both. A half-close goes on as a half-close and a failure as a failure:
// a reset of the stream breaks the connection, a broken connection resets the stream. It
// returns nil when both directions ended cleanly, else the first failure. When ctx ends
// both are cut.
func Join(ctx context.Context, stream transport.Stream, c net.Conn) error {
	return splice.Join(ctx, stream, c).Err
}

// Forward accepts connections from ln and carries each to address through dial,
// until ctx ends; it then cuts them, closes ln, waits and returns the cause of ctx.
// It returns earlier when ln fails. A connection whose dial fails is reset; failed,
// if not nil, is told why.
func Forward(ctx context.Context, ln net.Listener, dial DialFunc, network, address string, failed func(error)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer ln.Close()
	for {
		local, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("tunnel: forward: %w", err)
		}
		wg.Go(func() {
			remote, err := dial(ctx, network, address)
			if err != nil {
				splice.Abort(local, transport.Canceled)
				if failed != nil {
					failed(err)
				}
				return
			}
			stream, ok := remote.(transport.Stream)
			if !ok {
				splice.Abort(local, transport.Canceled)
				_ = remote.Close()
				if failed != nil {
					failed(errors.New("tunnel: forward: dial returned a connection that is not a stream"))
				}
				return
			}
			splice.Join(ctx, stream, local)
		})
	}
}
