package tunnel

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// Session is a gateway's handle to one connected agent. It lives as long as the
// agent has a connection; after a reconnect without overlap there is a new one, so
// callers that live longer use [Gateway.Dialer] or ask [Gateway.Session] again. All
// methods may be called concurrently.
type Session interface {
	// Agent describes the agent.
	Agent() AgentInfo

	// Open opens a stream to t and returns after the agent answered: the target is
	// reached, or the error is an *[OpenError] with the agent's code. ctx and
	// [Gateway.OpenTimeout] bound the wait; a stream that was returned does not
	// depend on ctx. The caller closes the stream.
	Open(ctx context.Context, t Target) (transport.Stream, error)

	// Context ends with the session. Its cause is the *transport.CloseError of the
	// last connection.
	Context() context.Context

	// Close cuts all connections of the agent. The agent sees the code NoError and
	// will come back. It returns nil.
	Close() error
}

type session struct {
	gateway *Gateway
	ctx     context.Context
	cancel  context.CancelCauseFunc

	mu       sync.Mutex
	info     AgentInfo
	links    []*link  // oldest first
	replaced []string // instances that had to give way, oldest first
}

var _ Session = (*session)(nil)

func (s *session) Agent() AgentInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.info
	info.Features = slices.Clone(info.Features)
	info.Services = slices.Clone(info.Services)
	return info
}

// setPolicy notes that the agent has told of another policy.
func (s *session) setPolicy(digest string) {
	s.mu.Lock()
	changed := s.info.Policy != digest
	s.info.Policy = digest
	s.mu.Unlock()
	if changed {
		s.gateway.Hooks.policyChanged(s.Agent())
	}
}

func (s *session) Context() context.Context { return s.ctx }

func (s *session) Close() error {
	each(s.snapshot(), func(l *link) { l.close(transport.NoError, "session closed by the gateway") })
	return nil
}

func (s *session) Open(ctx context.Context, t Target) (transport.Stream, error) {
	agent := s.info.ID // never changes
	if err := s.gateway.authorize(ctx, agent, t); err != nil {
		code, reason := refusal(err)
		return nil, &OpenError{Agent: agent, Target: t, Code: code, Reason: reason, Err: err}
	}
	l := s.pick()
	if l == nil {
		return nil, notConnected(agent, t)
	}
	return l.open(ctx, t)
}

// pick prefers the newest connection that still takes streams: the agent has
// proven last that it works.
func (s *session) pick() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range slices.Backward(s.links) {
		if !l.draining.Load() && l.peerDrain.Load() == nil {
			return l
		}
	}
	if len(s.links) > 0 {
		return s.links[len(s.links)-1] // its refusal says why
	}
	return nil
}

func (s *session) snapshot() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.links)
}

func notConnected(agent string, t Target) *OpenError {
	return &OpenError{Agent: agent, Target: t, Code: transport.NotConnected}
}

// authorize asks the gateway's own policy. The agent's has the last word.
func (g *Gateway) authorize(ctx context.Context, agent string, t Target) error {
	target, err := policy.ParseTarget(t.Service, t.Address)
	if err != nil {
		return err
	}
	if g.Policy == nil {
		return nil
	}
	if err := g.Policy.Authorize(ctx, policy.Request{Subject: t.Subject, Agent: agent, Target: target}); err != nil {
		return fmt.Errorf("tunnel: gateway policy: %w", err)
	}
	return nil
}
