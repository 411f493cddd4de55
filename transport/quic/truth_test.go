package quic_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// truthRounds is how many streams see each kind of end. OUTGATE_ROUNDS sets it, for
// the runs at night.
func truthRounds(t *testing.T) int {
	t.Helper()
	s, ok := os.LookupEnv("OUTGATE_ROUNDS")
	if !ok {
		return 64
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err, "OUTGATE_ROUNDS")
	return n
}

// victims is a connection whose sides have written on streams of which their
// readers have read a part.
type victims struct {
	agent, gateway transport.Mux
	mute           func() // both sides hear nothing more
	cut            func() // the sockets are closed under both sides
	lost           atomic.Bool
	flows          []*victim
}

// victim is one direction of one stream.
type victim struct {
	writer, reader transport.Stream
	at             transport.Mux // the reader's side
	sent           []byte
	read           int // how much of it was read before the end
}

const victimStreams = 16

func newVictims(t *testing.T, ca *testca.CA, mutable bool) *victims {
	t.Helper()
	limits := quic.Config{IdleTimeout: 5 * time.Second}
	var here, there net.PacketConn = socket(t), socket(t) // which are read in batches
	if mutable {
		here, there = &muteConn{PacketConn: here}, &muteConn{PacketConn: there}
	}
	l, err := quic.ListenPacket(here, ca.Gateway(), quic.ListenConfig{Config: limits})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	v := new(victims)
	v.mute = func() {
		v.lost.Store(true)
		here.(*muteConn).muted.Store(true)
		there.(*muteConn).muted.Store(true)
	}
	v.cut = func() {
		v.lost.Store(true)
		_ = here.Close()
		_ = there.Close()
	}
	v.agent, v.gateway = connect(t, l, &quic.Dialer{
		TLSClientConfig: ca.Agent("agent-1"),
		Config:          limits,
		ListenPacket:    func(context.Context, string, string) (net.PacketConn, error) { return there, nil },
	})
	for i := range victimStreams {
		from, to := v.agent, v.gateway
		if i%2 == 0 {
			from, to = to, from
		}
		f := &victim{at: to, sent: make([]byte, 1+rand.IntN(10_000))}
		for j := range f.sent {
			f.sent[j] = byte(i + j)
		}
		f.writer, f.reader = open(t, from, to, string(f.sent))
		f.read = rand.IntN(len(f.sent))
		_, err := io.ReadFull(f.reader, make([]byte, f.read))
		require.NoError(t, err)
		require.NoError(t, f.reader.SetReadDeadline(time.Time{}))
		v.flows = append(v.flows, f)
	}
	for _, way := range [][2]transport.Mux{{v.agent, v.gateway}, {v.gateway, v.agent}} {
		_, accepted := open(t, way[0], way[1], "all that was sent before has arrived")
		_, err := io.ReadFull(accepted, make([]byte, 10))
		require.NoError(t, err)
	}
	return v
}

// ending is one way in which streams or their connection end.
type ending struct {
	name   string
	end    func(v *victims) error
	want   func(err error) error // checks what the reader got after the data
	loses  bool                  // a reset overtakes data
	mutes  bool
	closer func(v *victims) transport.Mux
}

// everyWriter ends each stream by itself.
func everyWriter(end func(transport.Stream) error) func(*victims) error {
	return func(v *victims) (err error) {
		for _, f := range v.flows {
			err = errors.Join(err, end(f.writer))
		}
		return err
	}
}

func isEOF(err error) error {
	if err != nil { // io.ReadAll takes io.EOF for granted
		return fmt.Errorf("want io.EOF: %w", err)
	}
	return nil
}

func isOneOf(codes ...transport.Code) func(error) error {
	return func(err error) error {
		for _, code := range codes {
			if errors.Is(err, code) {
				return nil
			}
		}
		return fmt.Errorf("want %v, got: %w", codes, err)
	}
}

func endings() []ending {
	byAgent := func(v *victims) transport.Mux { return v.agent }
	byGateway := func(v *victims) transport.Mux { return v.gateway }
	restart := func(pick func(v *victims) transport.Mux) func(*victims) error {
		return func(v *victims) error { return pick(v).CloseWithError(transport.Draining, "restart") }
	}
	lost := isOneOf(transport.ConnectionLost, transport.Timeout)
	return []ending{
		{name: "the writer ends its direction", want: isEOF, end: everyWriter(transport.Stream.CloseWrite)},
		{name: "the writer closes the stream", want: isEOF, end: everyWriter(transport.Stream.Close)},
		{
			name: "the writer resets the stream", want: isOneOf(transport.Denied), loses: true,
			end: everyWriter(func(s transport.Stream) error { return s.Reset(transport.Denied) }),
		},
		{name: "the agent closes the connection", want: isOneOf(transport.Draining), end: restart(byAgent), closer: byAgent},
		{name: "the gateway closes the connection", want: isOneOf(transport.Draining), end: restart(byGateway), closer: byGateway},
		{name: "the network falls silent", want: lost, end: func(v *victims) error { v.mute(); return nil }, mutes: true},
		{name: "the sockets are closed", want: lost, end: func(v *victims) error { v.cut(); return nil }},
	}
}

func TestEveryEndIsToldTruthfullyAfterWhatHadArrived(t *testing.T) {
	t.Parallel() // it waits most of the time
	ca := testca.New(t)
	var connections sync.WaitGroup
	defer connections.Wait()
	few := make(chan struct{}, 64)
	for i := range (truthRounds(t) + victimStreams - 1) / victimStreams {
		for _, e := range endings() {
			few <- struct{}{}
			v := newVictims(t, ca, i%2 == 0 || e.mutes)
			connections.Go(func() {
				e.check(t, v)
				<-few
			})
		}
	}
}

func (e ending) check(t *testing.T, v *victims) {
	var readers sync.WaitGroup
	defer readers.Wait()
	ended := make(chan struct{})
	for i, f := range v.flows {
		if e.closer != nil && e.closer(v) == f.at {
			continue // calls on the side that closes fail at once
		}
		readers.Go(func() {
			switch i % 3 {
			case 0: // in a Read when the end comes
			case 1:
				<-ended
			case 2: // takes its time
				<-ended
				<-time.After(1200 * time.Millisecond)
			}
			got, err := io.ReadAll(f.reader)
			assert.NoError(t, e.want(err), "%s", e.name)
			if e.loses {
				assert.True(t, bytes.HasPrefix(f.sent[f.read:], got), "%s", e.name)
			} else {
				assert.True(t, bytes.Equal(f.sent[f.read:], got), "%s: %d of %d bytes after the first %d", e.name, len(got), len(f.sent)-f.read, f.read)
			}
			_, err = f.reader.Read(make([]byte, 1))
			assert.Error(t, err, "%s: the error stays", e.name)
		})
	}
	assert.NoError(t, e.end(v), "%s", e.name)
	if e.closer != nil || v.lost.Load() {
		for _, m := range []transport.Mux{v.agent, v.gateway} {
			select {
			case <-m.Context().Done():
			case <-time.After(patience):
				assert.Fail(t, "the connection has not ended", "%s", e.name)
			}
		}
	}
	close(ended)
}
