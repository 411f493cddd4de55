package splice_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
)

// tlsPair returns the two ends of a TLS connection.
func tlsPair(t *testing.T) (near, far *tls.Conn) {
	t.Helper()
	ca := testca.New(t)
	rawNear, rawFar := pair(t, "tcp")
	agent := ca.Agent("agent")
	agent.ServerName = "localhost"
	near, far = tls.Client(rawNear, agent), tls.Server(rawFar, ca.Gateway())
	handshake := make(chan error, 1)
	go func() { handshake <- far.Handshake() }()
	require.NoError(t, near.Handshake())
	require.NoError(t, <-handshake)
	return near, far
}

func TestAbortIsNotAnEndForTheOtherSide(t *testing.T) {
	for name, conns := range map[string]func(t *testing.T) (near, far net.Conn){
		"tcp": func(t *testing.T) (net.Conn, net.Conn) { return pair(t, "tcp") },
		"tls": func(t *testing.T) (net.Conn, net.Conn) { return tlsPair(t) },
		"stream": func(t *testing.T) (net.Conn, net.Conn) {
			near, far, _ := streams(t)
			return near, far
		},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := conns(t)
			splice.Abort(near, transport.Overloaded)
			_, err := far.Read(make([]byte, 1))
			require.Error(t, err)
			require.NotErrorIs(t, err, io.EOF)
			if name == "stream" {
				require.ErrorIs(t, err, transport.Overloaded)
			}
			_, err = near.Read(make([]byte, 1))
			require.Error(t, err, "this side is closed too")
		})
	}
}

func TestATargetThatIsAStreamPassesCodesOn(t *testing.T) {
	t.Run("to the target", func(t *testing.T) {
		near, far, _ := streams(t)
		f := start(t.Context(), t, near, far)
		require.NoError(t, f.caller.Reset(transport.Draining))
		_, err := far.Read(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Draining, Remote: true}, err)
		require.Equal(t, splice.Stream, f.result(t).Side)
	})
	t.Run("from the target", func(t *testing.T) {
		near, far, _ := streams(t)
		f := start(t.Context(), t, near, far)
		require.NoError(t, far.Reset(transport.Unreachable))
		_, err := f.caller.Read(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Unreachable, Remote: true}, err)
		require.Equal(t, splice.Target, f.result(t).Side)
	})
	t.Run("a half-close", func(t *testing.T) {
		near, far, _ := streams(t)
		f := start(t.Context(), t, near, far)
		send(t, f.caller, "question")
		closeWrite(t, f.caller)
		receive(t, far, "question")
		receiveEnd(t, far)
		send(t, far, "answer")
		assert.NoError(t, far.Close())
		receive(t, f.caller, "answer")
		receiveEnd(t, f.caller)
		require.Equal(t, splice.Result{ToTarget: 8, FromTarget: 6}, f.result(t))
	})
}
