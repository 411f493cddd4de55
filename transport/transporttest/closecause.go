package transporttest

import (
	"context"
	"math"
	"net"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func closeCauseTests() []test {
	return []test{
		{"both sides learn code, reason and who closed", closeCause},
		{"the reason may be cut, the code never", longReason},
		{"the first call wins", firstCloseWins},
	}
}

// requireCause waits for the end of m and fails unless this is its cause.
func requireCause(t *trial, m transport.Mux, want transport.CloseError, what string) {
	t.Helper()
	got := causeOf(t, m, what)
	require.Equal(t, want, *got, what)
	require.ErrorIs(t, got, want.Code, what)
	require.ErrorIs(t, got, net.ErrClosed, what)
}

func causeOf(t *trial, m transport.Mux, what string) *transport.CloseError {
	t.Helper()
	if !finishes(m.Context().Done(), t.patience) {
		t.Fatalf("%s: Context has not ended after %v", what, t.patience)
	}
	var got *transport.CloseError
	require.ErrorAs(t, context.Cause(m.Context()), &got, "%s: the cause of Context", what)
	return got
}

func closeCause(t *trial) {
	for _, code := range []transport.Code{transport.NoError, transport.Draining, transport.Revoked, 4242, math.MaxUint32} {
		t.eachWay(func(c oneWay) {
			opened, accepted := t.open(c)
			require.NoError(t, c.opener.CloseWithError(code, "so long"))
			requireCause(t, c.opener, transport.CloseError{Code: code, Reason: "so long"}, c.name+": the side that closed")
			requireCause(t, c.acceptor, transport.CloseError{Code: code, Reason: "so long", Remote: true}, c.name+": the peer")
			for name, x := range map[string]struct {
				m      transport.Mux
				s      transport.Stream
				remote bool
			}{
				"the side that closed": {c.opener, opened, false},
				"the peer":             {c.acceptor, accepted, true},
			} {
				what := c.name + ": " + name
				want := transport.CloseError{Code: code, Reason: "so long", Remote: x.remote}
				_, err := x.m.OpenStream(t.Context())
				requireCloseError(t, err, want, what+": OpenStream")
				_, err = x.m.AcceptStream(t.Context())
				requireCloseError(t, err, want, what+": AcceptStream")
				requireCloseError(t, wait(t, pendingRead(x.s), what+": Read").err, want, what+": Read")
				_, err = x.s.Write(make([]byte, 1))
				requireCloseError(t, err, want, what+": Write")
			}
		})
	}
}

func requireCloseError(t *trial, err error, want transport.CloseError, what string) {
	t.Helper()
	var got *transport.CloseError
	require.ErrorAs(t, err, &got, what)
	require.Equal(t, want, *got, what)
}

func longReason(t *trial) {
	t.eachWay(func(c oneWay) {
		reason := strings.Repeat("because ", 1000)
		require.NoError(t, c.opener.CloseWithError(transport.Overloaded, reason))
		got := causeOf(t, c.acceptor, c.name)
		require.Equal(t, transport.Overloaded, got.Code, c.name)
		require.True(t, got.Remote, c.name)
		require.True(t, strings.HasPrefix(reason, got.Reason), "%s: the reason is %q", c.name, got.Reason)
	})
}

func firstCloseWins(t *trial) {
	t.eachWay(func(c oneWay) {
		require.NoError(t, c.opener.CloseWithError(transport.Draining, "first"))
		require.NoError(t, c.opener.CloseWithError(transport.Internal, "second"), "%s: again", c.name)
		requireCause(t, c.acceptor, transport.CloseError{Code: transport.Draining, Reason: "first", Remote: true}, c.name)
		require.NoError(t, c.acceptor.CloseWithError(transport.Internal, "third"), "%s: after the peer", c.name)
		requireCause(t, c.opener, transport.CloseError{Code: transport.Draining, Reason: "first"}, c.name)
		requireCause(t, c.acceptor, transport.CloseError{Code: transport.Draining, Reason: "first", Remote: true}, c.name)

		start := time.Now()
		require.NoError(t, c.acceptor.CloseWithError(transport.Internal, "fourth"), c.name)
		require.Less(t, time.Since(start), t.patience, c.name)
	})
}
