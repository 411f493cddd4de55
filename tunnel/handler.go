package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// Handler serves the streams of one service.
type Handler interface {
	// ServeStream answers in with Accept or Reject; returning without an answer
	// rejects it as an internal error. Whoever accepted the stream closes it, also
	// after ServeStream returned. ctx ends with the connection, its cause says why;
	// ServeStream must then return soon. A panic resets the stream and nothing else.
	ServeStream(ctx context.Context, in *Incoming)
}

// HandlerFunc makes a function a [Handler].
type HandlerFunc func(ctx context.Context, in *Incoming)

// ServeStream calls f.
func (f HandlerFunc) ServeStream(ctx context.Context, in *Incoming) { f(ctx, in) }

// ErrAnswered is what a second Accept or Reject of the same [Incoming] returns.
var ErrAnswered = errors.New("tunnel: stream was already accepted or rejected")

// Incoming is a stream that the other side wants to open. It was already allowed
// by the agent's policy. Not a byte of payload flows before Accept.
type Incoming struct {
	// Agent is the agent at the other end, on a gateway; on an agent it is the
	// agent's own [Agent.Name].
	Agent string

	// Target is what was asked for. Its fields are printable and bounded, and
	// otherwise the other side's words.
	Target Target

	// Deadline is when the other side stops waiting for the answer.
	Deadline time.Time

	parsed  policy.Target
	stream  transport.Stream
	peer    net.Addr
	release func() // the stream has ended here; may be called again
	settled func() // the stream no longer waits for its answer; may be called again

	mu       sync.Mutex
	answer   answer
	answered chan struct{} // closed by the first answer
}

type answer int

const (
	unanswered answer = iota
	accepted
	rejected
)

func (in *Incoming) decide(a answer) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.answer != unanswered {
		return ErrAnswered
	}
	in.answer = a
	close(in.answered)
	in.settled()
	return nil
}

func (in *Incoming) wasAccepted() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.answer == accepted
}

// Accept tells the other side that the target was reached, at reached if that is
// not nil, and returns the stream. The caller owns it from then on.
func (in *Incoming) Accept(reached net.Addr) (transport.Stream, error) {
	if err := in.decide(accepted); err != nil {
		return nil, err
	}
	reply := wire.Reply{OK: true}
	if reached != nil {
		reply.Addr = reached.String()
	}
	if err := in.reply(reply); err != nil {
		_ = in.stream.Reset(transport.Internal)
		in.release()
		return nil, fmt.Errorf("tunnel: accept: %w", err)
	}
	return &conn{
		Stream:  in.stream,
		local:   addr{network: in.Target.Service, address: in.Target.Address},
		remote:  in.peer,
		from:    in,
		release: in.release,
	}, nil
}

// Reject refuses the stream and ends it. The other side's open fails with code and
// reason, of which only printable characters and the first kilobyte arrive. The
// code NoError is sent as Internal.
func (in *Incoming) Reject(code transport.Code, reason string) error {
	if err := in.decide(rejected); err != nil {
		return err
	}
	if code == transport.NoError {
		code = transport.Internal
	}
	if err := in.reply(wire.Reply{Code: code, Reason: wire.PrintableReason(reason)}); err != nil {
		_ = in.stream.Reset(code)
		return fmt.Errorf("tunnel: reject: %w", err)
	}
	return in.stream.Close()
}

func (in *Incoming) reply(r wire.Reply) error {
	if err := in.stream.SetWriteDeadline(time.Now().Add(controlWriteTimeout)); err != nil {
		return err
	}
	if err := wire.WriteReply(in.stream, r); err != nil {
		return err
	}
	return in.stream.SetWriteDeadline(time.Time{})
}

// IncomingOf returns the request that c came from, when a [Handler] or a listener
// of [Agent.Listen] accepted it, and nil otherwise. An http.Server learns the subject
// of a connection by it in its ConnContext.
func IncomingOf(c net.Conn) *Incoming {
	if c, ok := c.(*conn); ok {
		return c.from
	}
	return nil
}

// services maps service names to handlers.
type services struct {
	mu sync.RWMutex
	m  map[string]Handler
}

// reserved names belong to the protocol.
var reserved = []string{"control", "kube", "probe", "udp"}

func (s *services) handle(service string, h Handler) error {
	if h == nil {
		return fmt.Errorf("tunnel: handle %q: the handler is nil", service)
	}
	if slices.Contains(reserved, service) {
		return fmt.Errorf("tunnel: handle %q: the name is reserved", service)
	}
	if len(service) > wire.MaxService || !validService(service) {
		return fmt.Errorf(`tunnel: handle %q: want tcp, unix, http or a name such as "example.com/x"`, service)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.m[service]; taken {
		return fmt.Errorf("tunnel: handle %q: the service has a handler already", service)
	}
	if s.m == nil {
		s.m = make(map[string]Handler)
	}
	s.m[service] = h
	return nil
}

func (s *services) remove(service string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[service] == h {
		delete(s.m, service)
	}
}

func (s *services) lookup(service string) Handler {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[service]
}

func (s *services) names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.m))
	for name := range s.m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func validService(name string) bool {
	if name == "tcp" || name == "unix" || name == "http" {
		return true
	}
	owner, rest, ok := strings.Cut(name, "/")
	if !ok || owner == "" || rest == "" {
		return false
	}
	_, err := policy.ParseTarget(name, "")
	return err == nil
}
