package quic_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// A call that waits when its connection ends returns, whatever it waits for and
// whoever ends the connection, also when the ends meet.
func TestEveryEndWakesEveryCall(t *testing.T) {
	t.Parallel() // it waits most of the time
	restart := func(m transport.Mux) { _ = m.CloseWithError(transport.Draining, "restart") }
	giveUp := func(m transport.Mux) { _ = m.CloseWithError(transport.Timeout, "no sign of life") }
	ends := map[string]func(c *busy){
		"one side closes":    func(c *busy) { restart(c.sides[rand.IntN(2)]) },
		"both sides close":   func(c *busy) { c.eachSide(restart) },
		"one side gives up":  func(c *busy) { giveUp(c.sides[rand.IntN(2)]) },
		"the sockets close":  func(c *busy) { c.cut() },
		"a socket closes":    func(c *busy) { _ = c.sockets[rand.IntN(2)].Close() },
		"cut while closing":  func(c *busy) { c.race(c.cut, func() { c.eachSide(restart) }) },
		"mute, and given up": func(c *busy) { c.mute(); c.eachSide(giveUp) },
		"mute and closed":    func(c *busy) { c.mute(); c.eachSide(restart) },
		"silence that the user notices, too": func(c *busy) {
			c.mute()
			<-time.After(shortIdle - shortIdle/16 + rand.N(shortIdle/4)) // when this side notices by itself
			c.eachSide(giveUp)
		},
	}
	ca := testca.New(t)
	var connections sync.WaitGroup
	defer connections.Wait()
	few := make(chan struct{}, 64)
	for range truthRounds(t) / victimStreams {
		for name, end := range ends {
			few <- struct{}{}
			c := newBusy(t, ca)
			connections.Go(func() {
				<-time.After(rand.N(5 * time.Millisecond))
				end(c)
				c.requireQuiet(t, name)
				<-few
			})
		}
	}
}

const shortIdle = 5 * time.Second // the least that Config takes

// busy is a connection with calls under way on every stream of both sides.
type busy struct {
	sides   [2]transport.Mux
	sockets [2]*muteConn
	calls   sync.WaitGroup
	mu      sync.Mutex
	wrong   []error // what the calls should not have returned
}

func newBusy(t *testing.T, ca *testca.CA) *busy {
	t.Helper()
	c := &busy{sockets: [2]*muteConn{{PacketConn: socket(t)}, {PacketConn: socket(t)}}}
	limits := quic.Config{IdleTimeout: shortIdle}
	l, err := quic.ListenPacket(c.sockets[0], ca.Gateway(), quic.ListenConfig{Config: limits})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	agent, gateway := connect(t, l, &quic.Dialer{
		TLSClientConfig: ca.Agent("agent-1"),
		Config:          limits,
		ListenPacket:    func(context.Context, string, string) (net.PacketConn, error) { return c.sockets[1], nil },
	})
	c.sides = [2]transport.Mux{agent, gateway}
	for i := range 2 * victimStreams {
		from, to := c.sides[i%2], c.sides[1-i%2]
		opened, accepted := open(t, from, to, "x")
		for j, s := range []transport.Stream{opened, accepted} {
			require.NoError(t, s.SetDeadline(time.Time{})) // the end alone wakes the calls
			c.use(from, s, i/2+j)
			from = to
		}
	}
	return c
}

// use makes the calls of one stream of m, of one of several kinds.
func (c *busy) use(m transport.Mux, s transport.Stream, kind int) {
	ended, read := m.Context().Done(), make(chan struct{})
	c.calls.Go(func() { // reads until it fails; some start when the peer has filled the window
		defer close(read)
		if kind%3 == 2 {
			<-ended
		}
		b := make([]byte, 2000)
		for {
			if _, err := s.Read(b); err != nil {
				c.check(m, err)
				return
			}
		}
	})
	c.calls.Go(func() {
		if kind%4 == 3 {
			<-ended
		}
		b := make([]byte, 1+rand.IntN(8000))
		for {
			if _, err := s.Write(b); err != nil {
				c.check(m, err)
				break
			}
		}
		if err := s.CloseWrite(); err != nil {
			c.check(m, err)
		}
	})
	if kind%5 == 4 { // sets deadlines that are no reason to wake up
		c.calls.Go(func() {
			for {
				_ = s.SetDeadline(time.Now().Add(time.Hour))
				_ = s.SetDeadline(time.Time{})
				select {
				case <-time.After(100 * time.Microsecond):
				case <-read:
					return
				}
			}
		})
	}
	if kind%7 == 6 { // ends it when the connection does
		c.calls.Go(func() {
			<-ended
			if kind%2 == 0 {
				_ = s.Reset(transport.Canceled)
			} else {
				_ = s.Close()
			}
		})
	}
}

// check looks at what a call returned that the end has woken.
func (c *busy) check(m transport.Mux, err error) {
	_, told := errors.AsType[*transport.CloseError](err)
	if told && m.Context().Err() == nil {
		c.mu.Lock()
		c.wrong = append(c.wrong, err)
		c.mu.Unlock()
	}
}

func (c *busy) eachSide(do func(transport.Mux)) {
	c.race(func() { do(c.sides[0]) }, func() { do(c.sides[1]) })
}

func (*busy) race(a, b func()) {
	var both sync.WaitGroup
	both.Go(a)
	both.Go(b)
	both.Wait()
}

func (c *busy) mute() {
	for _, s := range c.sockets {
		s.muted.Store(true)
	}
}

func (c *busy) cut() {
	for _, s := range c.sockets {
		_ = s.Close()
	}
}

// requireQuiet waits until all calls have returned.
func (c *busy) requireQuiet(t *testing.T, end string) {
	t.Helper()
	quiet := make(chan struct{})
	go func() {
		c.calls.Wait()
		close(quiet)
	}()
	select {
	case <-quiet:
	case <-time.After(patience):
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("%s: calls outlive their connection, which ended with %v and %v:\n%s", end,
			context.Cause(c.sides[0].Context()), context.Cause(c.sides[1].Context()), &stacks)
		return
	}
	assert.Empty(t, c.wrong, "%s: calls that knew of an end before Context did", end)
}
