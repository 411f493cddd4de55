package testnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// UDPRelay forwards datagrams to a target and answers back, one socket per client, as
// an address translator does.
type UDPRelay struct {
	target string
	seed   uint64
	conn   *net.UDPConn
	tasks  sync.WaitGroup

	mu     sync.Mutex
	cond   [2]Conditions
	flows  map[netip.AddrPort]*flow
	closed bool
}

// flow is one client of a UDPRelay.
type flow struct {
	lines [2]*line

	mu  sync.Mutex
	far net.Conn // towards the target
}

// RelayUDP starts a relay on a loopback port. It ends with the test.
func RelayUDP(tb testing.TB, target string, seed uint64) *UDPRelay {
	tb.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatalf("testnet: %v", err)
	}
	r := &UDPRelay{target: target, seed: seed, conn: conn, flows: make(map[netip.AddrPort]*flow)}
	r.tasks.Go(r.read)
	tb.Cleanup(func() {
		_ = conn.Close()
		r.mu.Lock()
		r.closed = true
		for _, f := range r.flows {
			f.close()
		}
		r.mu.Unlock()
		r.tasks.Wait()
	})
	return r
}

// Addr is where to send to.
func (r *UDPRelay) Addr() string { return r.conn.LocalAddr().String() }

// Set changes one direction of all clients, now and to come.
func (r *UDPRelay) Set(d Direction, c Conditions) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cond[d] = c
	for _, f := range r.flows {
		f.lines[d].set(c)
	}
}

// Rebind gives every client a new address towards the target, as a translator does that
// has forgotten them.
func (r *UDPRelay) Rebind(tb testing.TB) {
	tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		far, err := r.dial()
		if err != nil {
			tb.Fatalf("testnet: %v", err)
		}
		f.mu.Lock()
		old := f.far
		f.far = far
		f.mu.Unlock()
		_ = old.Close()
		r.tasks.Go(func() { f.readFar(far) })
	}
}

func (r *UDPRelay) dial() (net.Conn, error) {
	return new(net.Dialer).DialContext(context.Background(), "udp", r.target)
}

func (r *UDPRelay) read() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if f := r.flow(from); f != nil {
			f.lines[AToB].send(slices.Clone(buf[:n]))
		}
	}
}

func (r *UDPRelay) flow(from netip.AddrPort) *flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.flows[from]; ok || r.closed {
		return f
	}
	far, err := r.dial()
	if err != nil {
		return nil
	}
	f := &flow{far: far}
	number := uint64(len(r.flows)) + 1
	f.lines[AToB] = newLine(r.seed, 2*number, false, r.cond[AToB], func(b []byte) {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, _ = f.far.Write(b) // what fails is lost
	})
	f.lines[BToA] = newLine(r.seed, 2*number+1, false, r.cond[BToA], func(b []byte) {
		_, _ = r.conn.WriteToUDPAddrPort(b, from)
	})
	r.flows[from] = f
	r.tasks.Go(func() { f.readFar(far) })
	return f
}

func (f *flow) readFar(far net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := far.Read(buf)
		if err != nil && errors.Is(err, net.ErrClosed) {
			return
		}
		if n > 0 { // else the target is not there: the relay tells nobody
			f.lines[BToA].send(slices.Clone(buf[:n]))
		}
	}
}

func (f *flow) close() {
	f.lines[AToB].stop()
	f.lines[BToA].stop()
	f.mu.Lock()
	_ = f.far.Close()
	f.mu.Unlock()
	<-f.lines[AToB].done
	<-f.lines[BToA].done
}
