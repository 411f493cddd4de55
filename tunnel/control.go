package tunnel

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// Liveness says how a side finds out that its peer is gone. A side that has heard
// nothing on the control stream for an interval sends a ping; without an answer it asks
// again after Busy each time, and after Misses silent intervals in a row it ends the
// connection with code Timeout. The zero value means the defaults, which find a dead
// peer within 9 seconds while streams are open and within 21 otherwise.
type Liveness struct {
	Busy   time.Duration // interval while streams are open; 0 means 3 s
	Idle   time.Duration // first interval otherwise; 0 means 15 s, below the idle timeouts of load balancers
	Misses int           // 0 means 3; at least 2
}

func (lv Liveness) withDefaults() Liveness {
	if lv.Busy <= 0 {
		lv.Busy = 3 * time.Second
	}
	if lv.Idle <= 0 {
		lv.Idle = 15 * time.Second
	}
	if lv.Misses == 0 {
		lv.Misses = 3
	}
	lv.Misses = max(lv.Misses, 2)
	return lv
}

// writeControl sends one frame. When it fails it has ended the connection, since
// half a frame leaves the stream useless.
func (l *link) writeControl(f wire.Frame) error {
	l.controlMu.Lock()
	defer l.controlMu.Unlock()
	err := l.control.SetWriteDeadline(time.Now().Add(controlWriteTimeout))
	if err == nil {
		err = wire.WriteFrame(l.control, f)
	}
	if err != nil {
		l.close(transport.Timeout, fmt.Sprintf("could not send %s", f.Type))
	}
	return err
}

// readControl serves the control stream until the connection ends.
func (l *link) readControl() {
	for {
		f, err := wire.ReadFrame(l.control)
		if err != nil {
			l.controlFailed(err)
			return
		}
		l.mu.Lock()
		l.heard = time.Now()
		l.heards++
		l.mu.Unlock()
		switch f.Type {
		case wire.TypePing:
			if l.writeControl(wire.Frame{Type: wire.TypePong, Pong: f.Ping}) != nil {
				return
			}
		case wire.TypePong:
			l.pong(f.Pong.Seq)
		case wire.TypeDrain:
			l.log.Info("peer is draining", "reason", f.Drain.Reason)
			l.peerDrain.Store(f.Drain)
		case wire.TypePolicy:
			if !l.cfg.atGateway {
				l.close(transport.Protocol, "policy from a gateway")
				return
			}
			l.policyChanged(f.Policy.Digest)
		case wire.TypeHello, wire.TypeWelcome:
			l.close(transport.Protocol, fmt.Sprintf("%s after the handshake", f.Type))
			return
		}
	}
}

func (l *link) controlFailed(err error) {
	switch {
	case l.mux.Context().Err() != nil:
	case errors.Is(err, wire.ErrMalformed):
		l.log.Warn("peer broke the protocol on the control stream", "error", err)
		l.close(transport.Protocol, err.Error())
	case errors.Is(err, io.EOF):
		l.close(transport.Protocol, "the control stream ended")
	default:
		// A reset control stream, or a connection whose context is about to end.
		l.close(transport.Protocol, "the control stream failed")
	}
}

func (l *link) pong(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq == l.pingSeq && !l.pingAt.IsZero() {
		l.rtt = time.Since(l.pingAt)
		l.pingAt = time.Time{}
	}
}

func (l *link) ping() error {
	l.mu.Lock()
	l.pingSeq++
	l.pingAt = time.Now()
	seq := l.pingSeq
	l.mu.Unlock()
	return l.writeControl(wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{Seq: seq}})
}

// keepAlive watches the silence of the peer until the connection ends.
func (l *link) keepAlive() {
	lv := l.cfg.liveness
	due := make(chan struct{}, 1)
	wake := func() {
		select {
		case due <- struct{}{}:
		default:
		}
	}
	// A carrier that is stuck takes no ping. Whoever waits for it must not be the one who
	// counts the silence: its end unblocks the write.
	pinging := make(chan struct{}, 1)
	ask := func() {
		select {
		case pinging <- struct{}{}:
			l.tasks.Go(func() {
				_ = l.ping() // a failed write has ended the connection
				<-pinging
			})
		default: // the last one has not left yet
		}
	}
	var (
		mark   = time.Now() // the silence is counted in intervals from here
		heards uint64
		misses int
	)
	for {
		l.mu.Lock()
		if l.heards != heards {
			mark, heards, misses = l.heard, l.heards, 0
		}
		interval := lv.Idle
		if l.active > 0 || misses > 0 { // a peer in doubt is asked again soon
			interval = min(lv.Busy, lv.Idle)
		}
		l.due = mark.Add(interval)
		l.mu.Unlock()
		// No timer for what is due now: it would run in this goroutine, and two of those
		// at once crash the race detector inside a bubble of testing/synctest (Go 1.26).
		var timer *time.Timer
		if wait := time.Until(mark.Add(interval)); wait > 0 {
			timer = time.AfterFunc(wait, wake)
		} else {
			wake()
		}
		stop := func() {
			if timer != nil {
				timer.Stop()
			}
		}
		select {
		case <-l.mux.Context().Done():
			stop()
			return
		case <-l.kick:
			stop()
			// The long interval may just have begun: ask at once, so that a stream
			// on a dead connection learns of it in busy time.
			if time.Since(mark) > lv.Busy {
				mark = time.Now()
				ask()
			}
		case <-due:
			l.mu.Lock()
			silent := l.heards == heards
			l.mu.Unlock()
			if !silent || time.Since(mark) < interval { // or a timer that was stopped too late
				continue
			}
			mark = time.Now()
			if misses++; misses >= lv.Misses {
				l.log.Warn("peer fell silent", "after", time.Since(l.lastHeard()).Round(time.Millisecond))
				l.close(transport.Timeout, "no sign of life")
				continue // the context has ended
			}
			ask()
		}
	}
}

func (l *link) lastHeard() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard
}

func (l *link) roundTrip() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rtt
}
