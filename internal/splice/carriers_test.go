package splice_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
)

// overCarriers runs test with streams that real sockets carry.
func overCarriers(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Run("websocket", func(t *testing.T) {
		ca := testca.New(t)
		l, err := websocket.Listen("127.0.0.1:0", ca.Gateway(), websocket.Config{})
		require.NoError(t, err)
		test(t, startOver(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent")}))
	})
	t.Run("quic", func(t *testing.T) {
		ca := testca.New(t)
		l, err := quic.Listen("127.0.0.1:0", ca.Gateway(), quic.ListenConfig{})
		require.NoError(t, err)
		test(t, startOver(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent")}))
	})
}

// startOver is startTCP with a stream from a gateway to an agent.
func startOver(t *testing.T, l transport.Listener, d transport.Dialer) *fixture {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() })
	agent, err := d.Dial(t.Context(), "https://"+l.Addr().String())
	require.NoError(t, err)
	gateway, err := l.Accept(t.Context())
	require.NoError(t, err)
	caller, err := gateway.OpenStream(t.Context())
	require.NoError(t, err)
	send(t, caller, "!")
	stream, err := agent.AcceptStream(t.Context())
	require.NoError(t, err)
	receive(t, stream, "!")
	near, far := pair(t, "tcp")
	f := &fixture{caller: caller, target: far, done: make(chan splice.Result, 1)}
	var join sync.WaitGroup
	join.Go(func() { f.done <- splice.Join(agent.Context(), stream, near) })
	t.Cleanup(func() {
		_ = far.Close()
		_ = gateway.CloseWithError(transport.NoError, "")
		_ = agent.CloseWithError(transport.NoError, "")
		join.Wait()
	})
	return f
}

func TestHalfClosesTravelOverEveryCarrier(t *testing.T) {
	overCarriers(t, func(t *testing.T, f *fixture) {
		question, answer := bytes.Repeat([]byte("question"), 100_000), bytes.Repeat([]byte("answer"), 200_000)
		var target sync.WaitGroup
		target.Go(func() {
			got, err := io.ReadAll(f.target)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(question, got))
			_, err = f.target.Write(answer)
			assert.NoError(t, err)
			assert.NoError(t, f.target.Close())
		})
		_, err := f.caller.Write(question)
		require.NoError(t, err)
		closeWrite(t, f.caller)
		got, err := io.ReadAll(f.caller)
		require.NoError(t, err)
		require.True(t, bytes.Equal(answer, got))
		target.Wait()
		want := splice.Result{ToTarget: int64(len(question)), FromTarget: int64(len(answer))}
		require.Equal(t, want, f.result(t))
	})
}

func TestAnOrdinaryCloseIsNoFailureOverAnyCarrier(t *testing.T) {
	overCarriers(t, func(t *testing.T, f *fixture) {
		send(t, f.caller, "goodbye")
		require.NoError(t, f.caller.Close())
		receive(t, f.target, "goodbye")
		receiveEnd(t, f.target)
		require.NoError(t, f.target.Close())
		require.Equal(t, splice.Result{ToTarget: 7}, f.result(t))
	})
}

func TestResetsTravelOverEveryCarrier(t *testing.T) {
	t.Run("from the target", func(t *testing.T) {
		overCarriers(t, func(t *testing.T, f *fixture) {
			send(t, f.target, "half of the ans")
			receive(t, f.caller, "half of the ans")
			breakOff(t, f.target)
			_, err := f.caller.Read(make([]byte, 1))
			require.Equal(t, &transport.StreamError{Code: transport.TargetReset, Remote: true}, err)
			require.Equal(t, splice.Target, f.result(t).Side)
		})
	})
	t.Run("from the caller", func(t *testing.T) {
		overCarriers(t, func(t *testing.T, f *fixture) {
			send(t, f.caller, "half of the que")
			receive(t, f.target, "half of the que")
			require.NoError(t, f.caller.Reset(transport.Canceled))
			requireReset(t, f.target)
			r := f.result(t)
			require.ErrorIs(t, r.Err, transport.Canceled)
			require.Equal(t, splice.Stream, r.Side)
		})
	})
}

func TestATargetThatHangsUpEarlyIsHeardInFullOverEveryCarrier(t *testing.T) {
	overCarriers(t, func(t *testing.T, f *fixture) {
		answer := bytes.Repeat([]byte("413 "), 50_000)
		go func() {
			_, err := f.target.Write(answer)
			assert.NoError(t, err)
			assert.NoError(t, f.target.Close())
		}()
		got, err := io.ReadAll(f.caller)
		require.NoError(t, err)
		require.True(t, bytes.Equal(answer, got))
		require.ErrorIs(t, writeUntilRefused(f.caller), transport.Canceled)
		require.Equal(t, splice.Target, f.result(t).Side)
	})
}

func TestWhatACallerWroteBeforeItClosedIsDeliveredOverEveryCarrier(t *testing.T) {
	overCarriers(t, func(t *testing.T, f *fixture) {
		upload := bytes.Repeat([]byte("upload"), 200_000)
		var chatter sync.WaitGroup
		chatter.Go(func() {
			for {
				if _, err := f.target.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		})
		go func() {
			_, err := f.caller.Write(upload)
			assert.NoError(t, err)
			assert.NoError(t, f.caller.Close())
		}()
		got, err := io.ReadAll(f.target)
		require.NoError(t, err)
		require.True(t, bytes.Equal(upload, got))
		require.NoError(t, f.target.(*net.TCPConn).CloseWrite())
		chatter.Wait()
		require.EqualValues(t, len(upload), f.result(t).ToTarget)
	})
}
