package wire

import (
	"fmt"
	"io"
	"time"
)

// FrameType names a control frame.
type FrameType string

// The control frames of version 1. A receiver skips types it does not know.
const (
	TypeHello   FrameType = "hello"   // agent to gateway, first frame
	TypeWelcome FrameType = "welcome" // gateway to agent, answers hello
	TypePing    FrameType = "ping"    // either way
	TypePong    FrameType = "pong"    // answers ping with the same seq
	TypeDrain   FrameType = "drain"   // either way: the sender accepts no new streams
	TypePolicy  FrameType = "policy"  // agent to gateway: its policy has changed
)

// Frame is one message on the control stream. Exactly the field that Type names
// is set.
type Frame struct {
	Type    FrameType `json:"type"`
	Hello   *Hello    `json:"hello,omitempty"`
	Welcome *Welcome  `json:"welcome,omitempty"`
	Ping    *Ping     `json:"ping,omitempty"`
	Pong    *Ping     `json:"pong,omitempty"`
	Drain   *Drain    `json:"drain,omitempty"`
	Policy  *Policy   `json:"policy,omitempty"`
}

// Hello introduces an agent. It carries no identity: that is in the certificate.
type Hello struct {
	Instance string   `json:"instance"`           // random, new in each process
	Software string   `json:"software,omitempty"` // name and version, for people
	Features []string `json:"features,omitempty"` // optional parts of the protocol
	Services []string `json:"services,omitempty"` // what the agent serves
	Policy   string   `json:"policy,omitempty"`   // digest of the agent's policy
}

// Welcome admits an agent.
type Welcome struct {
	Gateway  string    `json:"gateway"` // identifies the gateway process
	Software string    `json:"software,omitempty"`
	Features []string  `json:"features,omitempty"` // those of the hello that both sides have
	Time     time.Time `json:"time"`               // the gateway's clock
}

// Ping asks for a pong.
type Ping struct {
	Seq uint64 `json:"seq"`
}

// Drain announces the end of the sender.
type Drain struct {
	Reason string `json:"reason,omitempty"`
	// WithinMillis is how long the receiver may take to reconnect elsewhere; it
	// picks a random moment in it, so that a restart does not bring everybody at once.
	WithinMillis int64 `json:"within_ms,omitempty"`
}

// Policy tells of a changed policy.
type Policy struct {
	Digest string `json:"digest,omitempty"`
}

const (
	maxName    = 128 // bytes of a name or a version
	maxEntries = 64  // of a list
)

// WriteFrame sends f with a single Write.
func WriteFrame(w io.Writer, f Frame) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("wire: encode: %w", err)
	}
	return writeMessage(w, f, MaxControl)
}

// ReadFrame reads one frame. A frame of an unknown type is returned with only its
// Type set. Errors about what the peer sent match [ErrMalformed]; those of r are
// returned as they are, io.EOF only before the first byte.
func ReadFrame(r io.Reader) (Frame, error) {
	var f Frame
	if err := readMessage(r, &f, MaxControl); err != nil {
		return Frame{}, err
	}
	f = f.only()
	if err := f.check(); err != nil {
		return Frame{}, fmt.Errorf("wire: %w: %w", ErrMalformed, err)
	}
	return f, nil
}

// only returns f without what its Type does not name, which to this version is an
// unknown field.
func (f Frame) only() Frame {
	switch f.Type {
	case TypeHello:
		return Frame{Type: f.Type, Hello: f.Hello}
	case TypeWelcome:
		return Frame{Type: f.Type, Welcome: f.Welcome}
	case TypePing:
		return Frame{Type: f.Type, Ping: f.Ping}
	case TypePong:
		return Frame{Type: f.Type, Pong: f.Pong}
	case TypeDrain:
		return Frame{Type: f.Type, Drain: f.Drain}
	case TypePolicy:
		return Frame{Type: f.Type, Policy: f.Policy}
	}
	return Frame{Type: f.Type}
}

func (f Frame) check() error {
	if f.Type == "" {
		return fmt.Errorf("frame without a type")
	}
	if err := checkText("type", string(f.Type), maxName); err != nil {
		return err
	}
	if f != f.only() {
		return fmt.Errorf("frame %q with the body of another type", f.Type)
	}
	switch f.Type {
	case TypeHello:
		if f.Hello == nil {
			return missingBody(f.Type)
		}
		return f.Hello.check()
	case TypeWelcome:
		if f.Welcome == nil {
			return missingBody(f.Type)
		}
		return f.Welcome.check()
	case TypePing:
		if f.Ping == nil {
			return missingBody(f.Type)
		}
	case TypePong:
		if f.Pong == nil {
			return missingBody(f.Type)
		}
	case TypeDrain:
		if f.Drain == nil {
			return missingBody(f.Type)
		}
		if err := checkMillis("within_ms", f.Drain.WithinMillis); err != nil {
			return err
		}
		return checkText("reason", f.Drain.Reason, MaxReason)
	case TypePolicy:
		if f.Policy == nil {
			return missingBody(f.Type)
		}
		return checkText("digest", f.Policy.Digest, maxName)
	}
	return nil
}

func missingBody(t FrameType) error { return fmt.Errorf("frame %q without its body", t) }

func (h *Hello) check() error {
	if h.Instance == "" {
		return fmt.Errorf("hello without an instance")
	}
	if err := checkText("instance", h.Instance, maxName); err != nil {
		return err
	}
	if err := checkText("software", h.Software, maxName); err != nil {
		return err
	}
	if err := checkText("policy", h.Policy, maxName); err != nil {
		return err
	}
	if err := checkList("features", h.Features); err != nil {
		return err
	}
	return checkList("services", h.Services)
}

func (w *Welcome) check() error {
	if w.Gateway == "" {
		return fmt.Errorf("welcome without a gateway")
	}
	if err := checkText("gateway", w.Gateway, maxName); err != nil {
		return err
	}
	if err := checkText("software", w.Software, maxName); err != nil {
		return err
	}
	return checkList("features", w.Features)
}

func checkList(field string, list []string) error {
	if len(list) > maxEntries {
		return fmt.Errorf("%s has %d entries, more than %d", field, len(list), maxEntries)
	}
	for _, s := range list {
		if err := checkText(field, s, maxName); err != nil {
			return err
		}
	}
	return nil
}
