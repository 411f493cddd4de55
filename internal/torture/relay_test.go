package torture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// cut says where a relay cuts the connection that it carries. A record is one of TLS
// over TCP, and a datagram over UDP.
type cut struct {
	fromGateway bool // the direction in which records count
	records     int  // that pass whole; negative: no cut
	inside      bool // half of the next one passes, too
	reset       bool // over TCP with RST instead of FIN
}

// relay stands between an agent and a gateway.
type relay struct {
	plan    cut
	records atomic.Int64  // that have passed whole in the direction of the plan
	large   atomic.Int64  // those among them of at least largeRecord bytes
	cut     chan struct{} // closed by the cut
	addr    net.Addr

	once  sync.Once
	end   func()
	tasks sync.WaitGroup
}

// largeRecord is more than any record of a handshake takes, and less than the piece
// of 4 KiB that a WebSocket writes at a time.
const largeRecord = 3000

// newRelay starts a relay for one connection.
func newRelay(network string, target net.Addr, plan cut) (*relay, error) {
	r := &relay{plan: plan, cut: make(chan struct{})}
	var err error
	if network == "udp" {
		err = r.forwardDatagrams(target)
	} else {
		err = r.forwardRecords(target)
	}
	return r, err
}

func (r *relay) close() {
	r.end()
	r.tasks.Wait()
}

// passes counts a record and reports whether it passes whole, or else how much of it.
func (r *relay) passes(n int) (whole bool, part int) {
	if r.plan.records >= 0 && r.records.Load() >= int64(r.plan.records) {
		if r.plan.inside {
			part = n / 2
		}
		return false, part
	}
	return true, n
}

func (r *relay) passed(n int) {
	r.records.Add(1)
	if n >= largeRecord {
		r.large.Add(1)
	}
}

// forwardRecords relays one TCP connection.
func (r *relay) forwardRecords(target net.Addr) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.addr = l.Addr()
	var mu sync.Mutex
	var ends []*net.TCPConn
	end := func(hard bool) {
		mu.Lock()
		defer mu.Unlock()
		_ = l.Close()
		for _, c := range ends {
			if hard {
				_ = c.SetLinger(0)
			}
			_ = c.Close()
		}
	}
	r.end = func() { end(false) }
	r.tasks.Go(func() {
		agent, err := l.Accept()
		if err != nil {
			return
		}
		mu.Lock()
		ends = append(ends, agent.(*net.TCPConn))
		mu.Unlock()
		gateway, err := net.Dial("tcp", target.String())
		if err != nil {
			end(false)
			return
		}
		mu.Lock()
		ends = append(ends, gateway.(*net.TCPConn))
		mu.Unlock()
		counted, other := [2]net.Conn{agent, gateway}, [2]net.Conn{gateway, agent}
		if r.plan.fromGateway {
			counted, other = other, counted
		}
		r.tasks.Go(func() {
			_, _ = io.Copy(other[1], struct{ io.Reader }{other[0]})
			end(false)
		})
		r.copyRecords(counted[1], counted[0])
		end(r.plan.reset)
	})
	return nil
}

// copyRecords copies until the planned cut, or until either side ends.
func (r *relay) copyRecords(dst io.Writer, src io.Reader) {
	var record bytes.Buffer
	for {
		record.Reset()
		if _, err := io.CopyN(&record, src, 5); err != nil { // RFC 8446, section 5.1
			return
		}
		if _, err := io.CopyN(&record, src, int64(binary.BigEndian.Uint16(record.Bytes()[3:]))); err != nil {
			return
		}
		whole, part := r.passes(record.Len())
		if _, err := dst.Write(record.Bytes()[:part]); err != nil {
			return
		}
		if !whole {
			close(r.cut)
			return
		}
		r.passed(record.Len())
	}
}

// forwardDatagrams relays the datagrams of one client. A cut is a black hole.
func (r *relay) forwardDatagrams(target net.Addr) error {
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	back, err := net.DialUDP("udp4", nil, target.(*net.UDPAddr))
	if err != nil {
		_ = front.Close()
		return err
	}
	for _, c := range []*net.UDPConn{front, back} { // no other loss than the cut
		_ = c.SetReadBuffer(4 << 20)
		_ = c.SetWriteBuffer(4 << 20)
	}
	r.addr = front.LocalAddr()
	r.end = func() {
		_ = front.Close()
		_ = back.Close()
	}
	var client atomic.Pointer[net.UDPAddr]
	toGateway := func(p []byte) { _, _ = back.Write(p) }
	toAgent := func(p []byte) {
		if to := client.Load(); to != nil {
			_, _ = front.WriteToUDP(p, to)
		}
	}
	r.tasks.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := front.ReadFromUDP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // of a datagram that was sent before
				continue
			}
			client.Store(from)
			r.datagram(buf[:n], toGateway, !r.plan.fromGateway)
		}
	})
	r.tasks.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := back.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			r.datagram(buf[:n], toAgent, r.plan.fromGateway)
		}
	})
	return nil
}

func (r *relay) datagram(p []byte, forward func([]byte), counts bool) {
	select {
	case <-r.cut:
		return
	default:
	}
	if !counts {
		forward(p)
		return
	}
	whole, part := r.passes(len(p))
	if part > 0 {
		forward(p[:part])
	}
	if !whole {
		r.once.Do(func() { close(r.cut) })
		return
	}
	r.passed(len(p))
}

// wasCut reports whether the cut has happened.
func (r *relay) wasCut() bool {
	select {
	case <-r.cut:
		return true
	default:
		return false
	}
}

// quiet is how long the end of a black hole may take to be noticed: an idle timeout
// of 5 s and a third.
const quiet = 40 * time.Second
