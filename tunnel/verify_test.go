package tunnel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

// blocklist refuses agents by name.
type blocklist struct {
	mu    sync.Mutex
	names map[string]error
}

func (b *blocklist) block(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.names == nil {
		b.names = make(map[string]error)
	}
	b.names[name] = err
}

func (b *blocklist) check(cs tls.ConnectionState) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names[cs.PeerCertificates[0].Subject.CommonName]
}

var errBlocked = errors.New("blocked")

type passingFault struct{ error }

func (passingFault) Temporary() bool { return true }
func (f passingFault) Unwrap() error { return f.error }

func TestVerifyRefusesAConnection(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code transport.Code
	}{
		"for good":    {errBlocked, transport.Revoked},
		"for a while": {passingFault{errBlocked}, transport.Overloaded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var list blocklist
				list.block("agent-2", c.err)
				refused := make(chan error, 8)
				f := start(t, &tunnel.Gateway{
					Verify: list.check,
					Hooks:  &tunnel.Hooks{ConnectionRefused: func(_ string, err error) { refused <- err }},
				}, nil)
				f.session(t)
				mux, err := (&mem.Dialer{Listener: f.listener, Name: "agent-2"}).Dial(t.Context(), "")
				require.NoError(t, err)
				<-mux.Context().Done()
				require.ErrorIs(t, context.Cause(mux.Context()), c.code)
				require.ErrorIs(t, <-refused, errBlocked)
				require.Len(t, f.gateway.Sessions(), 1)
			})
		})
	}
}

func TestReverifyEndsWhatIsNoLongerGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list blocklist
		f := start(t, &tunnel.Gateway{Verify: list.check}, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		requireEcho(t, stream)
		mux, err := (&mem.Dialer{Listener: f.listener, Name: "agent-2"}).Dial(t.Context(), "")
		require.NoError(t, err)
		rawAgent(t, mux, "other")

		list.block("agent-1", passingFault{errBlocked})
		f.gateway.Reverify()
		synctest.Wait()
		requireEcho(t, stream)

		began := time.Now()
		list.block("agent-1", errBlocked)
		f.gateway.Reverify()
		<-s.Context().Done()
		require.Less(t, time.Since(began), time.Second)
		require.ErrorIs(t, context.Cause(s.Context()), transport.Revoked)
		_, err = stream.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
		ended := <-f.ran
		require.ErrorIs(t, ended, transport.Revoked, "the agent learns why, and gives up")
		f.ran <- ended
		_, err = f.gateway.Session("agent-1")
		require.ErrorIs(t, err, tunnel.ErrNotConnected)
		_, err = f.gateway.Session("agent-2")
		require.NoError(t, err, "another agent is none the wiser")
		require.NoError(t, mux.Context().Err())
		mux, err = (&mem.Dialer{Listener: f.listener, Name: "agent-1"}).Dial(t.Context(), "")
		require.NoError(t, err)
		<-mux.Context().Done()
		require.ErrorIs(t, context.Cause(mux.Context()), transport.Revoked, "and cannot come back")
	})
}

func TestReverifyEndsWhatIsNoLongerGoodInADrainingGatewayToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list blocklist
		f := start(t, &tunnel.Gateway{Verify: list.check}, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		requireEcho(t, stream)

		patient, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- f.gateway.Shutdown(patient) }()
		synctest.Wait()
		requireEcho(t, stream)

		began := time.Now()
		list.block("agent-1", errBlocked)
		f.gateway.Reverify()
		_, err = stream.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.Revoked)
		require.NoError(t, <-drained, "nothing is left to wait for")
		require.Less(t, time.Since(began), time.Second)
		f.gateway.Reverify() // and there is nothing left to end
	})
}

// A verdict that changes while an agent connects, between the question and its
// place in the list that Reverify goes through, is not missed.
func TestAVerdictThatChangesDuringTheHandshakeIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		g := &tunnel.Gateway{}
		g.Verify = func(tls.ConnectionState) error {
			if asked.Add(1) > 1 {
				return errBlocked
			}
			g.Reverify() // the connection is in no session yet
			return nil
		}
		f := start(t, g, nil)
		synctest.Wait()
		require.Empty(t, f.gateway.Sessions())
		err := <-f.ran
		require.ErrorIs(t, err, transport.Revoked, "the agent gives up")
		f.ran <- err
	})
}

func TestAPanicOfVerifyIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &tunnel.Gateway{Verify: func(tls.ConnectionState) error { panic("a certificate nobody thought of") }}
		f := start(t, g, nil)
		synctest.Wait()
		require.Empty(t, f.gateway.Sessions())
		require.Positive(t, g.Stats().Panics)
	})
}
