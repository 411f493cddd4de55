package tunnel

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// Shutdown drains the gateway: it stops admitting agents, asks the connected ones to
// go elsewhere, refuses new streams with code Draining and lets the open ones end.
// A connection that an http.Transport or a database pool keeps idle is an open stream:
// close such pools first, or Shutdown takes as long as ctx lets it.
//
// Each connection is closed with code Draining when its streams have ended, or when ctx
// ends. Shutdown waits for every handler. It returns the cause of ctx if streams were cut.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.init()
	links := g.stopAdmitting()
	spread := orDefault(g.DrainSpread, 5*time.Second)
	var cut atomic.Bool
	each(links, func(l *link) {
		l.drain(ctx, wire.Drain{Reason: "the gateway is shutting down", WithinMillis: spread.Milliseconds()})
		if l.activeStreams() > 0 {
			cut.Store(true)
		}
		l.close(transport.Draining, "the gateway is shutting down")
	})
	g.wait()
	if cut.Load() && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Close cuts all connections with code Draining and waits for every handler. It
// returns nil.
func (g *Gateway) Close() error {
	g.init()
	each(g.stopAdmitting(), func(l *link) { l.close(transport.Draining, "the gateway was closed") })
	g.wait()
	return nil
}

// stopAdmitting ends Serve and the handshakes, and returns the connections.
func (g *Gateway) stopAdmitting() []*link {
	g.mu.Lock()
	g.draining = true
	for cancel := range g.serving {
		(*cancel)()
	}
	pending := make([]transport.Mux, 0, len(g.pending))
	for mux := range g.pending {
		pending = append(pending, mux)
	}
	g.mu.Unlock()
	each(pending, func(mux transport.Mux) {
		_ = mux.CloseWithError(transport.Draining, "the gateway is shutting down")
	})
	var links []*link
	for _, s := range g.allSessions() {
		links = append(links, s.snapshot()...)
	}
	return links
}

// each calls f for all of list at once and waits: a goodbye to a dead peer takes its
// time, and must not add up.
func each[T any](list []T, f func(T)) {
	var wg sync.WaitGroup
	for _, x := range list {
		wg.Go(func() { f(x) })
	}
	wg.Wait()
}

func (g *Gateway) wait() {
	g.connections.Wait()
	g.handlers.Wait()
}

// orDefault is v, or def when v is not positive.
func orDefault[T cmp.Ordered](v, def T) T {
	var zero T
	if v <= zero {
		return def
	}
	return v
}
