package tunnel_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

// cloneGateway is a gateway to which processes connect by hand.
type cloneGateway struct {
	*tunnel.Gateway
	listener *mem.Listener

	mu     sync.Mutex
	clones []tunnel.Clone
}

func newCloneGateway(t *testing.T, g *tunnel.Gateway) *cloneGateway {
	t.Helper()
	c := &cloneGateway{Gateway: g, listener: &mem.Listener{}}
	g.Hooks = &tunnel.Hooks{CloneSeen: func(clone tunnel.Clone) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.clones = append(c.clones, clone)
	}}
	served := make(chan error, 1)
	go func() { served <- g.Serve(context.Background(), c.listener) }()
	t.Cleanup(func() {
		_ = g.Close()
		require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
	})
	return c
}

func (c *cloneGateway) seen() []tunnel.Clone {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clones
}

// connect is one more connection of an instance of agent-1, which it says hello on.
func (c *cloneGateway) connect(t *testing.T, instance string) transport.Mux {
	t.Helper()
	mux, err := (&mem.Dialer{Listener: c.listener, Name: "agent-1"}).Dial(t.Context(), "")
	require.NoError(t, err)
	control, err := mux.OpenStream(t.Context())
	require.NoError(t, err)
	_, err = control.Write(rawFrame(`{"type":"hello","hello":{"instance":"` + instance + `"}}`))
	require.NoError(t, err)
	synctest.Wait()
	return mux
}

func alive(mux transport.Mux) bool { return mux.Context().Err() == nil }

func requireDuplicate(t *testing.T, mux transport.Mux) {
	t.Helper()
	require.False(t, alive(mux))
	require.ErrorIs(t, context.Cause(mux.Context()), transport.Duplicate)
}

func TestACloneReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCloneGateway(t, &tunnel.Gateway{})
		first, also := g.connect(t, "a"), g.connect(t, "a")
		require.Empty(t, g.seen(), "two connections of one process are no clones")

		began := time.Now()
		second := g.connect(t, "b")
		requireDuplicate(t, first)
		requireDuplicate(t, also)
		require.True(t, alive(second))
		require.Len(t, g.seen(), 1)
		require.Zero(t, time.Since(began), "the event comes at once")
		require.Equal(t, "a", g.seen()[0].Agent.Instance)
		require.Equal(t, "b", g.seen()[0].Instance)
		require.NotNil(t, g.seen()[0].RemoteAddr)
		require.False(t, g.seen()[0].Returned, "the first may have been a leftover")

		third := g.connect(t, "a")
		requireDuplicate(t, second)
		require.True(t, alive(third))
		require.Len(t, g.seen(), 2)
		require.True(t, g.seen()[1].Returned, "both live")
		g.connect(t, "a")
		require.Len(t, g.seen(), 2, "one event for each arrival of a process")
	})
}

func TestACloneIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCloneGateway(t, &tunnel.Gateway{Clones: tunnel.RejectClone})
		first := g.connect(t, "a")
		requireDuplicate(t, g.connect(t, "b"))
		require.True(t, alive(first))
		require.True(t, alive(g.connect(t, "a")), "a second connection of the first process")
		require.Len(t, g.seen(), 1)
		require.True(t, g.seen()[0].Refused)

		s, err := g.Session("agent-1")
		require.NoError(t, err)
		require.NoError(t, s.Close())
		synctest.Wait()
		require.True(t, alive(g.connect(t, "b")), "the first is gone")
		require.Len(t, g.seen(), 1)
	})
}

// An agent that was killed and comes back is let in when its silence was noticed.
func TestARejectedAgentGetsInWhenItsOldConnectionIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCloneGateway(t, &tunnel.Gateway{Clones: tunnel.RejectClone})
		g.connect(t, "killed") // says nothing any more
		tries := 0
		for ; tries < 60; tries++ {
			if mux := g.connect(t, "restarted"); alive(mux) {
				break
			}
			time.Sleep(time.Second)
		}
		require.InDelta(t, 21, tries, 2, "what it takes to find an idle peer dead")
	})
}

func TestClonesAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCloneGateway(t, &tunnel.Gateway{Clones: tunnel.AllowClones, MaxInstances: 2})
		first, second := g.connect(t, "a"), g.connect(t, "b")
		requireDuplicate(t, g.connect(t, "c"))
		require.True(t, alive(first))
		require.True(t, alive(second))
		require.True(t, alive(g.connect(t, "a")))
		require.Len(t, g.Sessions(), 1)
		require.Equal(t, 3, g.Stats().Connections)
		require.Len(t, g.seen(), 2)
		require.False(t, g.seen()[0].Refused)
		require.True(t, g.seen()[1].Refused)

		_ = first.CloseWithError(transport.NoError, "")
		synctest.Wait()
		requireDuplicate(t, g.connect(t, "c")) // the other connection of a lives
	})
}

func TestEachProcessHoldsItsShareOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCloneGateway(t, &tunnel.Gateway{Clones: tunnel.AllowClones})
		var own []transport.Mux
		other := g.connect(t, "b")
		for range 5 {
			own = append(own, g.connect(t, "a"))
		}
		requireDuplicate(t, own[0])
		for _, mux := range append(own[1:], other) {
			require.True(t, alive(mux))
		}
	})
}
