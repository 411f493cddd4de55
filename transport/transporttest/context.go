package transporttest

import (
	"context"
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func contextTests() []test {
	return []test{
		{"a context that is done lets nothing through", doneContext},
		{"a pending AcceptStream ends with its context", pendingAccept},
		{"the cause of the context is what comes back", contextCause},
		{"a canceled AcceptStream loses no stream", canceledAcceptLosesNothing},
		{"a stream outlives the context it was opened with", streamOutlivesContext},
	}
}

func doneContext(t *trial) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	t.eachWay(func(c oneWay) {
		t.openOnly(c.opener) // a stream waits, and still
		for want, ctx := range map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: expired} {
			err := wait(t, async(func() error { _, err := c.acceptor.AcceptStream(ctx); return err }), c.name+": AcceptStream")
			require.ErrorIs(t, err, want, "%s: AcceptStream", c.name)
			err = wait(t, async(func() error { _, err := c.opener.OpenStream(ctx); return err }), c.name+": OpenStream")
			require.ErrorIs(t, err, want, "%s: OpenStream", c.name)
		}
		require.NoError(t, c.opener.Context().Err(), "%s: the connection lives on", c.name)
		require.NoError(t, c.acceptor.Context().Err(), "%s: the connection lives on", c.name)
	})
}

func pendingAccept(t *trial) {
	t.eachWay(func(c oneWay) {
		ctx, cancel := context.WithCancel(t.Context())
		accept := async(func() error { _, err := c.acceptor.AcceptStream(ctx); return err })
		stays(t, accept, 20*time.Millisecond, c.name+": AcceptStream returned although nothing was opened")
		cancel()
		require.ErrorIs(t, wait(t, accept, c.name+": the canceled AcceptStream"), context.Canceled, c.name)

		ctx, cancel = context.WithTimeout(t.Context(), shortly)
		defer cancel()
		accept = async(func() error { _, err := c.acceptor.AcceptStream(ctx); return err })
		require.ErrorIs(t, wait(t, accept, c.name+": AcceptStream with a deadline"), context.DeadlineExceeded, c.name)
		t.requireHealthy(c)
	})
}

func contextCause(t *trial) {
	cause := errors.New("the user closed the window")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	t.eachWay(func(c oneWay) {
		_, err := c.opener.OpenStream(ctx)
		require.ErrorIs(t, err, cause, "%s: OpenStream", c.name)
	})
}

// canceledAcceptLosesNothing cancels an AcceptStream while a stream arrives. One
// of the two must win, and the stream must not fall between them.
func canceledAcceptLosesNothing(t *trial) {
	t.eachWay(func(c oneWay) {
		for range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			type accepted struct {
				s   transport.Stream
				err error
			}
			accept := async(func() accepted {
				s, err := c.acceptor.AcceptStream(ctx)
				return accepted{s, err}
			})
			opened := t.openOnly(c.opener)
			cancel()
			first := wait(t, accept, c.name+": the canceled AcceptStream")
			if first.err != nil {
				require.ErrorIs(t, first.err, context.Canceled, c.name)
				first.s = t.acceptOnly(c.acceptor)
			}
			require.NoError(t, opened.Close(), c.name)
			require.NoError(t, first.s.Close(), c.name)
		}
	})
}

func streamOutlivesContext(t *trial) {
	t.eachWay(func(c oneWay) {
		ctx, cancel := context.WithCancel(t.Context())
		opened, err := c.opener.OpenStream(ctx)
		require.NoError(t, err, c.name)
		_, err = opened.Write([]byte{greeting})
		require.NoError(t, err, c.name)
		accepted, err := c.acceptor.AcceptStream(ctx)
		require.NoError(t, err, c.name)
		cancel()
		go echoStream(accepted)
		require.NoError(t, readGreeting(opened, t.patience), c.name)
		require.NoError(t, roundTrip(opened, t.patience), "%s: after the context of its opening was canceled", c.name)
	})
}

// readGreeting reads the echo of the greeting.
func readGreeting(s transport.Stream, limit time.Duration) error {
	if err := s.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := s.Read(make([]byte, 1)); err != nil {
		return err
	}
	return s.SetReadDeadline(time.Time{})
}
