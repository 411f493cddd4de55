package tunnel

// Hooks are told what happens, in the manner of httptrace.ClientTrace. Every field
// may be nil. They are called on the path of the event, possibly at the same time
// from several goroutines, and must not block.
type Hooks struct {
	// SessionStarted: the first connection of an agent came up.
	SessionStarted func(AgentInfo)

	// SessionEnded: the last connection of an agent is gone; err is the
	// *transport.CloseError of that connection.
	SessionEnded func(AgentInfo, error)

	// PolicyChanged: a connected agent told of another policy, see [AgentInfo].Policy.
	PolicyChanged func(AgentInfo)

	// ConnectionRefused: a connection did not pass the handshake and was closed.
	ConnectionRefused func(remote string, err error)

	// CloneSeen: a process connected with the identity of another one that is
	// connected.
	CloneSeen func(Clone)
}

func (h *Hooks) sessionStarted(info AgentInfo) {
	if h != nil && h.SessionStarted != nil {
		h.SessionStarted(info)
	}
}

func (h *Hooks) sessionEnded(info AgentInfo, err error) {
	if h != nil && h.SessionEnded != nil {
		h.SessionEnded(info, err)
	}
}

func (h *Hooks) policyChanged(info AgentInfo) {
	if h != nil && h.PolicyChanged != nil {
		h.PolicyChanged(info)
	}
}

func (h *Hooks) connectionRefused(remote string, err error) {
	if h != nil && h.ConnectionRefused != nil {
		h.ConnectionRefused(remote, err)
	}
}

func (h *Hooks) cloneSeen(c Clone) {
	if h != nil && h.CloneSeen != nil {
		h.CloneSeen(c)
	}
}
