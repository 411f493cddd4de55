package tunnel

import (
	"errors"
	"slices"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// Reverify asks Verify about every connection again. One that it refuses ends at
// once, with all its streams, and the agent sees the code Revoked. An error whose
// Temporary method says true ends none: it does not say that the agent is bad.
// Reverify does not wait for the goodbyes.
func (g *Gateway) Reverify() {
	g.init()
	for _, s := range g.allSessions() {
		for _, l := range s.snapshot() {
			if err := g.verify(l.mux); err != nil && !temporary(err) {
				g.end(s, l, err)
			}
		}
	}
}

// end closes a connection beside whatever else goes on. While the connection is in
// its session, whoever waits for g.connections waits for it, and for this too.
func (g *Gateway) end(s *session, l *link, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.links, l) {
		return
	}
	l.log.Warn("ending a connection that is no longer good", "error", cause)
	g.connections.Go(func() { l.close(verdictCode(cause), wire.PrintableReason(cause.Error())) })
}

func (g *Gateway) verify(mux transport.Mux) (err error) {
	if g.Verify == nil {
		return nil
	}
	defer g.refuseOnPanic(&err)
	return g.Verify(mux.ConnectionState())
}

// verdictCode is what an agent sees that Verify has refused.
func verdictCode(err error) transport.Code {
	if temporary(err) {
		return transport.Overloaded
	}
	return transport.Revoked
}

func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}
