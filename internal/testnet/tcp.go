package testnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Direction is one of the two ways through a relay or a wire.
type Direction int

// The directions. The dialler of a relay is at its A end, the target at its B end.
const (
	AToB Direction = iota
	BToA
)

// TCPRelay forwards TCP connections to a target.
type TCPRelay struct {
	target string
	seed   uint64
	ln     net.Listener
	tasks  sync.WaitGroup

	mu     sync.Mutex
	cond   [2]Conditions
	cutAt  [2]int64 // 0: never
	open   map[*relayed]struct{}
	number uint64
	closed bool
}

// RelayTCP starts a relay on a loopback port. It ends with the test.
func RelayTCP(tb testing.TB, target string, seed uint64) *TCPRelay {
	tb.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("testnet: %v", err)
	}
	r := &TCPRelay{target: target, seed: seed, ln: ln, open: make(map[*relayed]struct{})}
	r.tasks.Go(r.accept)
	tb.Cleanup(func() {
		_ = ln.Close()
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.Cut()
		r.tasks.Wait()
	})
	return r
}

// Addr is where to dial.
func (r *TCPRelay) Addr() string { return r.ln.Addr().String() }

// Set changes one direction of all connections, now and to come.
func (r *TCPRelay) Set(d Direction, c Conditions) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cond[d] = c
	for conn := range r.open {
		conn.lines[d].set(c)
	}
}

// CutAfter resets each connection to come when it has delivered n bytes in a direction;
// 0 lets them live.
func (r *TCPRelay) CutAfter(d Direction, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutAt[d] = n
}

// Cut resets both ends of all connections.
func (r *TCPRelay) Cut() {
	for _, c := range r.connections() {
		c.cut()
	}
}

// HalfOpen resets the B end of all connections and tells the A end nothing: it stays
// connected to a relay that reads no more.
func (r *TCPRelay) HalfOpen() {
	for _, c := range r.connections() {
		c.lines[AToB].stop()
		c.lines[BToA].stop()
		reset(c.b)
	}
}

func (r *TCPRelay) connections() []*relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*relayed, 0, len(r.open))
	for c := range r.open {
		all = append(all, c)
	}
	return all
}

func (r *TCPRelay) accept() {
	for {
		a, err := r.ln.Accept()
		if err != nil {
			return
		}
		b, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.target)
		if err != nil {
			reset(a)
			continue
		}
		r.add(a, b)
	}
}

func (r *TCPRelay) add(a, b net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		reset(a)
		reset(b)
		return
	}
	c := &relayed{a: a, b: b, gone: make(chan struct{})}
	r.number++
	c.lines[AToB] = newLine(r.seed, 2*r.number, true, r.cond[AToB], c.deliver(b, r.cutAt[AToB]))
	c.lines[BToA] = newLine(r.seed, 2*r.number+1, true, r.cond[BToA], c.deliver(a, r.cutAt[BToA]))
	r.open[c] = struct{}{}
	r.tasks.Go(func() { c.pump(a, c.lines[AToB]) })
	r.tasks.Go(func() { c.pump(b, c.lines[BToA]) })
	r.tasks.Go(func() {
		<-c.gone
		<-c.lines[AToB].done
		<-c.lines[BToA].done
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, c)
	})
}

// relayed is one connection through a TCPRelay.
type relayed struct {
	a, b  net.Conn
	lines [2]*line
	once  sync.Once
	gone  chan struct{} // closed when both ends are

	mu    sync.Mutex
	ended int // directions that were ended with FIN
}

// pump reads until the end. A FIN travels on as a FIN, and a reset as a reset, unless one
// end was reset on purpose.
func (c *relayed) pump(from net.Conn, to *line) {
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			to.send(buf[:n])
		}
		if to.stopped() {
			return
		}
		if err == nil {
			continue
		}
		if n == 0 && errors.Is(err, io.EOF) {
			to.send(nil)
		} else {
			c.cut()
		}
		return
	}
}

// deliver returns what a line calls for each piece.
func (c *relayed) deliver(to net.Conn, cutAt int64) func([]byte) {
	var sent int64
	return func(b []byte) {
		if b == nil {
			c.finish(to)
			return
		}
		last := cutAt > 0 && sent+int64(len(b)) >= cutAt
		if last {
			b = b[:cutAt-sent]
		}
		n, err := to.Write(b)
		sent += int64(n)
		if last || err != nil {
			c.cut()
		}
	}
}

func (c *relayed) finish(to net.Conn) {
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	c.mu.Lock()
	c.ended++
	both := c.ended == 2
	c.mu.Unlock()
	if both {
		c.release(func(conn net.Conn) { _ = conn.Close() })
	}
}

func (c *relayed) cut() { c.release(reset) }

func (c *relayed) release(end func(net.Conn)) {
	c.once.Do(func() {
		c.lines[AToB].stop()
		c.lines[BToA].stop()
		end(c.a)
		end(c.b)
		close(c.gone)
	})
}

// reset ends a connection with RST.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
