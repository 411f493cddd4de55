package transporttest

import (
	"context"
	"net"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func closeEndsAllTests() []test {
	return []test{
		{"CloseWithError ends what is pending on both sides", closeEndsAll},
		{"OpenStream that waits for a slot ends too", closeEndsOpen},
	}
}

// pending is a call that was under way when the connection ended.
type pending struct {
	what string
	err  <-chan error
}

// allPending has a Read, a Write and an AcceptStream pending on both sides.
func allPending(t *trial, c oneWay) []pending {
	t.Helper()
	var calls []pending
	add := func(what string, f func() error) { calls = append(calls, pending{c.name + ": " + what, async(f)}) }
	for range 3 {
		opened, accepted := t.open(c)
		for name, s := range map[string]transport.Stream{"opener": opened, "acceptor": accepted} {
			idle := s
			add("Read of the "+name, func() error { _, err := idle.Read(make([]byte, 1)); return err })
		}
		opened, accepted = t.open(c)
		for name, s := range map[string]transport.Stream{"opener": opened, "acceptor": accepted} {
			full, p := s, t.tooMuch()
			add("Write of the "+name, func() error { _, err := full.Write(p); return err })
		}
	}
	for name, m := range map[string]transport.Mux{"opener": c.opener, "acceptor": c.acceptor} {
		add("AcceptStream of the "+name, func() error { _, err := m.AcceptStream(context.Background()); return err })
	}
	for _, call := range calls {
		stays(t, call.err, 5*time.Millisecond, call.what+" ended by itself")
	}
	return calls
}

func closeEndsAll(t *trial) {
	t.eachWay(func(c oneWay) {
		calls := allPending(t, c)
		start := time.Now()
		require.NoError(t, c.opener.CloseWithError(transport.Draining, "maintenance"), c.name)
		require.Less(t, time.Since(start), t.patience, "%s: CloseWithError", c.name)
		for _, call := range calls {
			err := wait(t, call.err, call.what)
			require.ErrorIs(t, err, net.ErrClosed, call.what)
			require.ErrorIs(t, err, transport.Draining, call.what)
		}
	})
}

func closeEndsOpen(t *trial) {
	if t.harness.MaxStreams == 0 {
		t.Skip("the harness names no limit on streams")
	}
	t.eachWay(func(c oneWay) {
		t.exhaust(c)
		open := async(func() error { _, err := c.opener.OpenStream(context.Background()); return err })
		stays(t, open, shortly, c.name+": OpenStream above the limit returned")
		require.NoError(t, c.acceptor.CloseWithError(transport.Draining, ""), c.name)
		err := wait(t, open, c.name+": OpenStream that waited for a slot")
		require.ErrorIs(t, err, transport.Draining, c.name)
		require.ErrorIs(t, err, net.ErrClosed, c.name)
	})
}
