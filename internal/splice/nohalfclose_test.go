package splice_test

import (
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/transport"
)

func TestATargetThatCannotHalfCloseMayStillAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		f := start(t.Context(), t, near, far)
		send(t, f.caller, "question")
		closeWrite(t, f.caller)
		receive(t, far, "question")
		for range 3 {
			time.Sleep(29 * time.Second)
			send(t, far, "answer")
			receive(t, f.caller, "answer")
		}
		require.NoError(t, far.Close())
		receiveEnd(t, f.caller)
		require.Equal(t, splice.Result{ToTarget: 8, FromTarget: 18}, f.result(t))
	})
}

func TestASilentTargetThatCannotHalfCloseIsClosedAfterItsCallersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		f := start(t.Context(), t, near, far)
		time.Sleep(time.Hour) // while the caller may still speak, silence is fine
		began := time.Now()
		closeWrite(t, f.caller)
		receiveEnd(t, far)
		require.Equal(t, 30*time.Second, time.Since(began))
		_, err := f.caller.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.TargetReset)
		r := f.result(t)
		require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded)
		require.Equal(t, splice.Target, r.Side)
	})
}
