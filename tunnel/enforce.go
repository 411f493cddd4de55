package tunnel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// enforcement is what an agent keeps to hold open streams to a policy that changes, and
// gateways informed of it.
type enforcement struct {
	mu      sync.Mutex
	streams map[*Incoming]netip.Addr // asked for and not ended; the address that was dialled, if one was
	links   map[*link]struct{}
}

// track remembers a stream from before its policy is asked until it has ended: a change
// that comes after the question finds it here.
func (e *enforcement) track(in *Incoming) {
	if e == nil { // at a gateway
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.streams == nil {
		e.streams = map[*Incoming]netip.Addr{}
	}
	e.streams[in] = netip.Addr{}
}

func (e *enforcement) forget(in *Incoming) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, in)
}

// dialled notes the address behind a stream. A stream that has ended is not remembered
// again.
func (e *enforcement) dialled(in *Incoming, addr netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, open := e.streams[in]; open {
		e.streams[in] = addr
	}
}

func (e *enforcement) open() map[*Incoming]netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.streams)
}

func (e *enforcement) connected() []*link {
	e.mu.Lock()
	defer e.mu.Unlock()
	links := make([]*link, 0, len(e.links))
	for l := range e.links {
		links = append(links, l)
	}
	return links
}

// maxDigest is what a frame carries, see internal/wire.
const maxDigest = 128

// join puts a link under the policy until leave is called. The policy may have changed
// since its hello.
func (a *Agent) join(l *link) (leave func()) {
	e := &a.enforcement
	e.mu.Lock()
	if e.links == nil {
		e.links = map[*link]struct{}{}
	}
	e.links[l] = struct{}{}
	e.mu.Unlock()
	l.announce(a.digest())
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.links, l)
	}
}

// digest is what gateways recognise the policy by, if it has one.
func (a *Agent) digest() string {
	d, ok := a.Policy.(policy.Digester)
	if !ok {
		return ""
	}
	digest := wire.PrintableReason(d.Digest())
	return digest[:min(len(digest), maxDigest)]
}

// announce tells the gateway of a policy that it does not know of.
func (l *link) announce(digest string) {
	l.announceMu.Lock()
	defer l.announceMu.Unlock()
	if l.announced == digest {
		return
	}
	l.announced = digest
	_ = l.writeControl(wire.Frame{Type: wire.TypePolicy, Policy: &wire.Policy{Digest: digest}}) // a failure has ended the connection
}

// followPolicy enforces each change of the policy until stop is called, which waits.
func (a *Agent) followPolicy() (stop func()) {
	changer, ok := a.Policy.(policy.Changer)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1)
	unsubscribe := changer.OnChange(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-changed:
				a.enforce(ctx)
				digest := a.digest()
				each(a.enforcement.connected(), func(l *link) { l.announce(digest) })
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		unsubscribe()
		cancel()
		<-done
	}
}

// enforce asks again about every open stream and resets those that are denied now.
func (a *Agent) enforce(ctx context.Context) {
	for in, addr := range a.enforcement.open() {
		r := a.request(in)
		r.Addr = addr
		if err := a.askAgain(ctx, r); err != nil && ctx.Err() == nil {
			a.withdraw(in, err)
		}
	}
}

// askAgain takes a panic of a product's policy for a denial, as it is where a stream is
// served.
func (a *Agent) askAgain(ctx context.Context, r policy.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.counters.panics.Add(1)
			a.log.Error("panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal fault of the policy")
		}
	}()
	return a.dialer.Check(ctx, r)
}

func (a *Agent) withdraw(in *Incoming, err error) {
	a.counters.withdrawn.Add(1)
	a.log.Warn("reset a stream that the policy does not allow any more",
		"request_id", in.Target.RequestID, "target", in.Target.String(), "subject", in.Target.Subject, "error", err)
	_ = in.stream.Reset(transport.Denied)
}

// reached notes where a dial has led, and asks once more when the policy can change: a
// change may have come between the question and the note.
func (a *Agent) reached(ctx context.Context, in *Incoming, target net.Conn) error {
	addr, _ := netip.ParseAddrPort(target.RemoteAddr().String()) // a unix socket has none
	a.enforcement.dialled(in, addr.Addr())
	if _, ok := a.Policy.(policy.Changer); !ok {
		return nil
	}
	r := a.request(in)
	r.Addr = addr.Addr()
	return a.dialer.Check(ctx, r)
}

// audited reports what a policy on trial let pass.
func (a *Agent) audited(r policy.Request, denied *policy.Denied) {
	a.counters.audited.Add(1)
	a.log.Warn("audit_only: the policy would deny a stream", "target", r.Target.String(), "subject", r.Subject, "error", denied)
}

// audit reports a stream that would be denied by what is known before it is dialled.
func (a *Agent) audit(r policy.Request) {
	if auditor, ok := a.Policy.(policy.Auditor); ok {
		if denied := auditor.WouldDeny(r); denied != nil {
			a.audited(r, denied)
		}
	}
}
