package torture

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// middlebox ends the TLS of both sides, as an inspecting proxy does, and passes
// WebSocket frames on. It can say goodbye to both of its own accord.
type middlebox struct {
	addr     net.Addr
	listener net.Listener
	tasks    sync.WaitGroup

	mu    sync.Mutex
	ends  []net.Conn // towards the agent, towards the gateway
	ready chan struct{}

	// A frame is passed on under the lock of its direction, so a goodbye falls between
	// two frames.
	passing [2]sync.Mutex
	over    bool // guarded by both of passing
}

// newMiddlebox starts a middlebox for one connection. It has the certificates of
// both sides.
func newMiddlebox(ids identities, target net.Addr) (*middlebox, error) {
	config := ids.gateway.Clone()
	config.NextProtos = []string{"http/1.1"}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return nil, err
	}
	b := &middlebox{addr: l.Addr(), listener: l, ready: make(chan struct{})}
	b.tasks.Go(func() {
		agent, err := l.Accept()
		if err != nil {
			return
		}
		b.keep(agent)
		config := ids.agent.Clone()
		config.ServerName, config.NextProtos = "127.0.0.1", []string{"http/1.1"}
		gateway, err := tls.Dial("tcp", target.String(), config)
		if err != nil {
			_ = agent.Close()
			return
		}
		b.keep(gateway)
		close(b.ready)
		b.tasks.Go(func() { b.pass(0, agent, gateway) })
		b.pass(1, gateway, agent)
	})
	return b, nil
}

func (b *middlebox) keep(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ends = append(b.ends, c)
}

func (b *middlebox) close() {
	_ = b.listener.Close()
	b.mu.Lock()
	for _, c := range b.ends {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.tasks.Wait()
}

// pass passes one direction on: the head of an HTTP message, then frames.
func (b *middlebox) pass(direction int, from, to net.Conn) {
	src := bufio.NewReader(from)
	for {
		line, err := src.ReadBytes('\n')
		if err != nil {
			return
		}
		if _, err := to.Write(line); err != nil {
			return
		}
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
	}
	var frame bytes.Buffer
	for {
		frame.Reset()
		if err := readFrame(&frame, src); err != nil {
			return
		}
		b.passing[direction].Lock()
		over := b.over
		var err error
		if !over {
			_, err = to.Write(frame.Bytes())
		}
		b.passing[direction].Unlock()
		if over || err != nil {
			return
		}
	}
}

// readFrame reads one frame (RFC 6455, section 5.2).
func readFrame(frame *bytes.Buffer, src io.Reader) error {
	if _, err := io.CopyN(frame, src, 2); err != nil {
		return err
	}
	second := frame.Bytes()[1]
	length, more := int64(second&0x7f), int64(0)
	switch length {
	case 126:
		more = 2
	case 127:
		more = 8
	}
	if _, err := io.CopyN(frame, src, more); err != nil {
		return err
	}
	switch head := frame.Bytes(); more {
	case 2:
		length = int64(binary.BigEndian.Uint16(head[2:]))
	case 8:
		length = int64(binary.BigEndian.Uint64(head[2:])) //nolint:gosec // from our own peers
	}
	if second&0x80 != 0 {
		length += 4 // the mask
	}
	_, err := io.CopyN(frame, src, length)
	return err
}

// sayGoodbye sends a close frame with the status to both sides and passes nothing on
// from then.
func (b *middlebox) sayGoodbye(status uint16) error {
	select {
	case <-b.ready:
	default:
		return fmt.Errorf("the middlebox is not connected")
	}
	for i := range b.passing {
		b.passing[i].Lock()
		defer b.passing[i].Unlock()
	}
	b.over = true
	reason := binary.BigEndian.AppendUint16(nil, status)
	toAgent := append([]byte{0x88, 2}, reason...)
	toGateway := append([]byte{0x88, 0x82, 0, 0, 0, 0}, reason...) // masked, with zero
	_, err := b.ends[0].Write(toAgent)
	if err == nil {
		_, err = b.ends[1].Write(toGateway)
	}
	return err
}
