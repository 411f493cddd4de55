package splice_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/transport"
)

// writeUntilRefused writes until that fails and returns the error.
func writeUntilRefused(c net.Conn) error {
	for {
		if _, err := c.Write([]byte("more")); err != nil {
			return err
		}
	}
}

func TestATargetThatStopsReadingFinishesItsAnswer(t *testing.T) {
	near, far := pair(t, "unix")
	f := start(t.Context(), t, near, far)
	require.NoError(t, far.(*net.UnixConn).CloseRead())
	writer := make(chan error, 1)
	go func() { writer <- writeUntilRefused(f.caller) }()

	answer := bytes.Repeat([]byte("answer"), 1<<20)
	go func() {
		_, err := far.Write(answer)
		assert.NoError(t, err)
		assert.NoError(t, far.Close())
	}()
	got, err := io.ReadAll(f.caller)
	require.NoError(t, err)
	require.True(t, bytes.Equal(answer, got))
	require.Equal(t, &transport.StreamError{Code: transport.Canceled, Remote: true}, <-writer)
	r := f.result(t)
	require.ErrorIs(t, r.Err, syscall.EPIPE)
	require.Equal(t, splice.Target, r.Side)
	require.EqualValues(t, len(answer), r.FromTarget)
	require.Zero(t, r.ToTarget)
}

func TestATargetThatAnswersAndHangsUpEarlyIsHeardInFull(t *testing.T) {
	f := startTCP(t.Context(), t)
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
	r := f.result(t)
	require.ErrorIs(t, r.Err, syscall.EPIPE)
	require.Equal(t, splice.Target, r.Side)
}

func TestWhatACallerWroteBeforeItClosedIsDelivered(t *testing.T) {
	f := startTCP(t.Context(), t)
	upload := bytes.Repeat([]byte("upload"), 300_000)
	var target sync.WaitGroup
	target.Go(func() { // sends all the time and nobody wants it
		for {
			if _, err := f.target.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	})
	_, err := f.caller.Write(upload[:1000])
	require.NoError(t, err)
	go func() {
		_, err := f.caller.Write(upload[1000:])
		assert.NoError(t, err)
		assert.NoError(t, f.caller.Close())
	}()
	got, err := io.ReadAll(f.target)
	require.NoError(t, err)
	require.True(t, bytes.Equal(upload, got))
	require.NoError(t, f.target.(*net.TCPConn).CloseWrite())
	target.Wait()
	r := f.result(t)
	require.ErrorIs(t, r.Err, transport.Canceled)
	require.Equal(t, splice.Stream, r.Side)
	require.EqualValues(t, len(upload), r.ToTarget)
}

func TestATargetThatSendsForEverIsCutOffAfterTheCallerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		f := start(t.Context(), t, near, far)
		began := time.Now()
		var clock sync.WaitGroup
		clock.Go(func() {
			for {
				if _, err := far.Write([]byte("tick")); err != nil {
					return
				}
				time.Sleep(300 * time.Millisecond)
			}
		})
		send(t, f.caller, "x")
		require.NoError(t, f.caller.Close())
		receive(t, far, "x")
		r := f.result(t)
		require.GreaterOrEqual(t, time.Since(began), 5*time.Second)
		require.LessOrEqual(t, time.Since(began), 5300*time.Millisecond)
		require.ErrorIs(t, r.Err, transport.Canceled)
		require.Equal(t, splice.Stream, r.Side)
		clock.Wait()
	})
}

func TestATargetThatNeverReadsDoesNotOutliveItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		f := start(t.Context(), t, near, far)
		began := time.Now()
		send(t, f.caller, "nobody reads this")
		require.NoError(t, f.caller.Close())
		synctest.Wait()
		send(t, far, "nobody reads this either")
		r := f.result(t)
		require.Equal(t, 30*time.Second, time.Since(began))
		require.ErrorIs(t, r.Err, transport.Canceled)
		require.Zero(t, r.ToTarget)
	})
}
