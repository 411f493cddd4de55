package tunnel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

func TestIdentityComesFromTheVerifiedCertificateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"Agent", "agent_1", "-agent", "agent-", "a.b", "agent\n", ""} {
			refused := make(chan error, 8)
			g := &tunnel.Gateway{
				Hooks: &tunnel.Hooks{ConnectionRefused: func(_ string, err error) { refused <- err }},
			}
			if name == "" { // no certificate at all
				g.Identify = nil
			}
			ln := &mem.Listener{}
			served := make(chan error, 1)
			go func() { served <- g.Serve(t.Context(), ln) }()
			d := transport.Dialer(&mem.Dialer{Listener: ln, Name: name})
			if name == "" {
				g.Identify = func(tls.ConnectionState) (string, error) { return "", errors.New("not one of ours") }
			}
			mux, err := d.Dial(t.Context(), "")
			require.NoError(t, err)
			<-mux.Context().Done()
			require.ErrorIs(t, context.Cause(mux.Context()), transport.Denied, "%q", name)
			require.Error(t, <-refused)
			require.Empty(t, g.Sessions())
			require.NoError(t, g.Close())
			require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
		}
	})
}

func TestAnotherProcessWithTheSameIdentityTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		f := start(t, &tunnel.Gateway{Hooks: &tunnel.Hooks{
			SessionStarted: func(i tunnel.AgentInfo) { mu.Lock(); events = append(events, "start "+i.ID); mu.Unlock() },
			SessionEnded:   func(i tunnel.AgentInfo, _ error) { mu.Lock(); events = append(events, "end "+i.ID); mu.Unlock() },
		}}, nil)
		s := f.session(t)
		require.NoError(t, f.agent.Handle(echoService, echo))
		before := s.Agent().Instance
		mux, err := f.dialer.Dial(t.Context(), "")
		require.NoError(t, err)
		second := rawAgent(t, mux, "another-process")
		synctest.Wait()
		require.Equal(t, "another-process", s.Agent().Instance)
		require.NotEqual(t, before, s.Agent().Instance)
		require.ErrorIs(t, f.agent.Status().LastError, transport.Duplicate)
		require.NoError(t, s.Context().Err(), "the session goes on")
		_ = second
		f.dialer.Cut()
		<-s.Context().Done()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []string{"start agent-1", "end agent-1"}, events[:2])
	})
}

func TestSessionsAreListedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &tunnel.Gateway{ID: "gw"}
		ln := &mem.Listener{}
		served := make(chan error, 1)
		go func() { served <- g.Serve(t.Context(), ln) }()
		for _, name := range []string{"c", "a", "b"} {
			mux, err := (&mem.Dialer{Listener: ln, Name: name}).Dial(t.Context(), "")
			require.NoError(t, err)
			rawAgent(t, mux, "instance")
		}
		synctest.Wait()
		var ids []string
		for _, s := range g.Sessions() {
			ids = append(ids, s.Agent().ID)
		}
		require.Equal(t, []string{"a", "b", "c"}, ids)
		require.Equal(t, 3, g.Stats().Connections)
		require.NoError(t, g.Close())
		require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
	})
}

func TestSessionCloseSendsTheAgentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		s := f.session(t)
		require.NoError(t, s.Close())
		<-s.Context().Done()
		require.ErrorIs(t, context.Cause(s.Context()), transport.NoError)
		f.session(t)
	})
}
