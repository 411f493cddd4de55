package splice_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/transport"
)

// requireReset demands that c was broken by its other end.
func requireReset(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// breakOff ends a TCP connection with RST.
func breakOff(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.(*net.TCPConn).SetLinger(0))
	require.NoError(t, c.Close())
}

func TestABrokenTargetIsAResetForTheCaller(t *testing.T) {
	f := startTCP(t.Context(), t)
	send(t, f.target, "half of the ans")
	receive(t, f.caller, "half of the ans")
	breakOff(t, f.target)
	_, err := f.caller.Read(make([]byte, 1))
	require.Equal(t, &transport.StreamError{Code: transport.TargetReset, Remote: true}, err)
	_, err = f.caller.Write([]byte("x"))
	require.ErrorIs(t, err, transport.TargetReset)
	r := f.result(t)
	require.ErrorIs(t, r.Err, syscall.ECONNRESET)
	require.Equal(t, splice.Target, r.Side)
	require.EqualValues(t, 15, r.FromTarget)
}

// The kernel tells only one of Read and Write that the target has broken; the
// other one may see a clean end. Both are busy here.
func TestATargetThatBreaksUnderTrafficNeverLooksLikeAnEnd(t *testing.T) {
	for range 300 {
		f := startTCP(t.Context(), t)
		var traffic sync.WaitGroup
		traffic.Go(func() {
			for {
				if _, err := f.caller.Write([]byte(strings.Repeat("x", 100))); err != nil {
					return
				}
			}
		})
		send(t, f.target, "half of the ans")
		_, err := io.CopyN(io.Discard, f.target, 10_000)
		require.NoError(t, err)
		breakOff(t, f.target)
		_, err = io.Copy(io.Discard, f.caller)
		require.ErrorIs(t, err, transport.TargetReset)
		traffic.Wait()
		r := f.result(t)
		require.Equal(t, splice.Target, r.Side, r.Err)
	}
}

func TestABrokenStreamBreaksTheTarget(t *testing.T) {
	for name, breakStream := range map[string]func(f *fixture){
		"reset by the caller": func(f *fixture) { _ = f.caller.Reset(transport.Canceled) },
		"connection cut":      func(f *fixture) { f.mux.Cut() },
		"connection closed":   func(f *fixture) { _ = f.mux.CloseWithError(transport.NoError, "done") },
	} {
		t.Run(name, func(t *testing.T) {
			f := startTCP(t.Context(), t)
			send(t, f.caller, "half of the que")
			receive(t, f.target, "half of the que")
			breakStream(f)
			requireReset(t, f.target)
			r := f.result(t)
			require.Error(t, r.Err)
			require.Equal(t, splice.Stream, r.Side)
			require.EqualValues(t, 15, r.ToTarget)
		})
	}
}

func TestTheContextUnblocksAWriteToATargetThatDoesNotRead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := startTCP(ctx, t)
	_ = f.caller.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for { // until the sockets and the stream are full
		_, err := f.caller.Write(make([]byte, 64<<10))
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	cancel()
	require.Equal(t, splice.Context, f.result(t).Side)
	requireReset(t, f.target)
}

func TestTheContextEndsTheJoin(t *testing.T) {
	errStop := errors.New("stop")
	for name, test := range map[string]struct {
		cause error
		want  transport.Code
	}{
		"plain cause":               {errStop, transport.Canceled},
		"cancel without a cause":    {nil, transport.Canceled},
		"a code":                    {transport.Draining, transport.Draining},
		"a wrapped code":            {errors.Join(errStop, transport.Revoked), transport.Revoked},
		"the end of a connection":   {&transport.CloseError{Code: transport.Duplicate}, transport.Duplicate},
		"a planned end":             {&transport.CloseError{Code: transport.NoError}, transport.Canceled},
		"the end of another stream": {&transport.StreamError{Code: transport.Overloaded}, transport.Overloaded},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			f := startTCP(ctx, t)
			send(t, f.caller, "x")
			receive(t, f.target, "x")
			cancel(test.cause)
			_, err := f.caller.Read(make([]byte, 1))
			require.Equal(t, &transport.StreamError{Code: test.want, Remote: true}, err)
			requireReset(t, f.target)
			want := splice.Result{ToTarget: 1, Err: context.Cause(ctx), Side: splice.Context}
			require.Equal(t, want, f.result(t))
		})
	}
}

func TestADeadlineEndsTheJoinWithATimeout(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	f := startTCP(ctx, t)
	_, err := f.caller.Read(make([]byte, 1))
	require.ErrorIs(t, err, transport.Timeout)
	requireReset(t, f.target)
	require.Equal(t, splice.Context, f.result(t).Side)
}

func TestAContextThatHasEndedIsNotIgnored(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := startTCP(ctx, t)
	require.Equal(t, splice.Context, f.result(t).Side)
	requireReset(t, f.target)
	_, err := f.caller.Read(make([]byte, 1))
	assert.ErrorIs(t, err, transport.Canceled)
}

func TestBothSidesAreClosedWhenJoinReturns(t *testing.T) {
	_, stream, mux := streams(t)
	near, _ := pair(t, "tcp")
	mux.Cut()
	splice.Join(t.Context(), stream, near)
	_, err := near.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = stream.Write([]byte("x"))
	require.Error(t, err)
}
