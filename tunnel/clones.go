package tunnel

import (
	"fmt"
	"net"
	"slices"
)

// ClonePolicy says what becomes of a process that connects with the identity of
// another one that is connected: an agent that was restarted while its old
// connection looks alive, or a copy of its key somewhere else. Each process has an
// instance ID of its own, so the connections of one process are never clones.
type ClonePolicy int

const (
	// ReplaceClone lets the newcomer take over: it has just proven that it holds
	// the key, and the old connection may be a leftover. Connections of the other
	// process end with code Duplicate. Two clones that both live take turns.
	ReplaceClone ClonePolicy = iota

	// RejectClone refuses the newcomer with code Duplicate. An agent that was
	// restarted without saying goodbye gets in again when the gateway has noticed
	// that its old connection is dead; see [Liveness].
	RejectClone

	// AllowClones lets as many processes as MaxInstances of the [Gateway] share an
	// identity, and refuses the next with code Duplicate. Streams go to the one
	// that connected last.
	AllowClones
)

// Clone is what [Hooks] learn of a second process with one identity.
type Clone struct {
	Agent AgentInfo // as it was before

	Instance   string   // of the newcomer
	RemoteAddr net.Addr // of the newcomer

	Refused bool // the newcomer was refused

	// Returned says that the newcomer was here before and had to give way: both
	// processes live. Without it the other one may be gone already.
	Returned bool
}

const (
	// maxLinks is how many connections one process of an agent may hold.
	maxLinks = 4

	defaultMaxInstances = 4

	// maxReplaced is how many instances a session remembers to have replaced.
	maxReplaced = 16
)

// admit decides about a connection that would join a session, whose lock is held.
// It returns the connections that give way and the clone that this one is, if any.
func (g *Gateway) admit(s *session, l *link) (replaced []*link, clone *Clone, err error) {
	own, others := partition(s.links, l.cfg.instance)
	if len(own) >= maxLinks {
		replaced = slices.Clone(own[:len(own)-maxLinks+1])
	}
	if len(others) == 0 {
		return replaced, nil, nil
	}
	clone = &Clone{
		Agent:      s.info,
		Instance:   l.cfg.instance,
		RemoteAddr: l.mux.RemoteAddr(),
		Returned:   slices.Contains(s.replaced, l.cfg.instance),
	}
	switch g.Clones {
	case RejectClone:
		if len(own) == 0 {
			clone.Refused = true
			return nil, clone, fmt.Errorf("agent %s is connected as instance %s; Gateway.Clones rejects another", s.info.ID, s.info.Instance)
		}
	case AllowClones:
		limit := orDefault(g.MaxInstances, defaultMaxInstances)
		if n := instances(others); len(own) == 0 && n >= limit {
			clone.Refused = true
			return nil, clone, fmt.Errorf("agent %s is connected as %d instances; Gateway.MaxInstances is %d", s.info.ID, n, limit)
		}
	default:
		for _, old := range others {
			s.remember(old.cfg.instance)
		}
		replaced = append(replaced, others...)
	}
	if len(own) > 0 {
		clone = nil // reported when the first of its connections came
	}
	return replaced, clone, nil
}

func (s *session) remember(instance string) {
	if slices.Contains(s.replaced, instance) {
		return
	}
	if len(s.replaced) == maxReplaced {
		s.replaced = s.replaced[1:]
	}
	s.replaced = append(s.replaced, instance)
}

// partition tells the connections of one instance from the rest. Those that have
// ended and are on their way out of the session are neither.
func partition(links []*link, instance string) (own, others []*link) {
	for _, l := range links {
		switch {
		case l.mux.Context().Err() != nil:
		case l.cfg.instance == instance:
			own = append(own, l)
		default:
			others = append(others, l)
		}
	}
	return own, others
}

func instances(links []*link) int {
	seen := make(map[string]struct{})
	for _, l := range links {
		seen[l.cfg.instance] = struct{}{}
	}
	return len(seen)
}
