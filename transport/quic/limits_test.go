package quic_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// A reader that keeps up for a while makes its stream's window grow. When such
// readers stop, each holds a grown window; the rest must go on all the same.
func TestGrownStreamsThatStallDelayNobody(t *testing.T) {
	stalled := 256
	if testing.Short() {
		stalled = 64
	}
	ca := testca.New(t)
	limits := quic.Config{MaxStreams: stalled + 8, StreamWindow: 256 << 10}
	l := listen(t, ca, quic.ListenConfig{Config: limits})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: limits})

	var writers sync.WaitGroup
	defer writers.Wait()
	for range stalled {
		writer, reader := open(t, agent, gateway, "x")
		t.Cleanup(func() { _ = reader.Close() })
		defer writer.Reset(transport.Canceled)
		require.NoError(t, writer.SetDeadline(time.Time{}))
		writers.Go(func() { _, _ = io.Copy(writer, zeros{}) })
		_, err := io.CopyN(io.Discard, reader, 768<<10) // grows, then stops
		require.NoError(t, err)
	}
	requireFlow(t, agent, gateway)
	requireFlow(t, gateway, agent)
}

func TestAThousandFreshStreamsThatStallDelayNobody(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})

	chunk := make([]byte, 256<<10)
	var writers sync.WaitGroup
	defer writers.Wait()
	for range 1000 {
		writer, _ := open(t, agent, gateway, "x")
		defer writer.Reset(transport.Canceled)
		writers.Go(func() { _, _ = writer.Write(chunk) })
	}
	requireFlow(t, agent, gateway)
	requireFlow(t, gateway, agent)
}

// requireFlow moves more than a stream's window on a new stream.
func requireFlow(t *testing.T, from, to transport.Mux) {
	t.Helper()
	start := time.Now()
	writer, reader := open(t, from, to, "x")
	defer reader.Close()
	go func() {
		defer writer.Close()
		_, _ = io.CopyN(writer, zeros{}, 4<<20)
	}()
	n, err := io.Copy(io.Discard, reader)
	require.NoError(t, err)
	require.EqualValues(t, 1+4<<20, n)
	assert.Less(t, time.Since(start), patience)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestAStreamHoldsNoMoreThanItsWindow(t *testing.T) {
	ca := testca.New(t)
	limits := quic.Config{StreamWindow: 128 << 10}
	l := listen(t, ca, quic.ListenConfig{Config: limits})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	writer, reader := open(t, agent, gateway, "x")
	_, err := io.ReadFull(reader, make([]byte, 1))
	require.NoError(t, err)

	require.NoError(t, writer.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
	n, err := writer.Write(make([]byte, 8<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.LessOrEqual(t, n, 130<<10)

	// What was reported as written is what arrives.
	require.NoError(t, writer.CloseWrite())
	got, err := io.ReadAll(reader)
	require.NoError(t, err)
	assert.Len(t, got, n)
}

// A frame of one stream opens those before it, too (RFC 9000, section 3.2).
func TestEveryAcceptStreamGetsItsStream(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	conn, err := hostileAgent(t, ca, l, "outgate/1")
	require.NoError(t, err)
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = gateway.CloseWithError(transport.NoError, "") })

	const streams = 50
	var acceptors sync.WaitGroup
	for range streams { // each accepts one and leaves
		acceptors.Go(func() {
			_, err := gateway.AcceptStream(soon(t))
			assert.NoError(t, err)
		})
	}
	<-time.After(50 * time.Millisecond) // they are all waiting, or the test proves less
	for i := range streams {
		s, err := conn.OpenStream()
		require.NoError(t, err)
		if i == streams-1 {
			_, err = s.Write([]byte("x"))
			require.NoError(t, err)
		}
	}
	acceptors.Wait()
}

func TestOpenStreamAtTheLimitReturnsTheCauseOfItsContext(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{Config: quic.Config{MaxStreams: 2}})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	for range 2 {
		open(t, agent, gateway, "x")
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, io.ErrNoProgress)
	defer cancel()
	_, err := agent.OpenStream(ctx)
	require.ErrorIs(t, err, io.ErrNoProgress)
	_, err = gateway.OpenStream(t.Context())
	require.NoError(t, err, "the limit is that of the other direction")
}

// The end abandons the streams of the connection. If their slots came back with
// that, an OpenStream of the peer that waits for one could return a stream.
func TestAClosingConnectionGivesNoSlotsBack(t *testing.T) {
	ca := testca.New(t)
	const slots = 4
	l := listen(t, ca, quic.ListenConfig{Config: quic.Config{MaxStreams: slots}})
	conn, err := hostileAgent(t, ca, l, "outgate/1")
	require.NoError(t, err)
	gateway, err := l.Accept(soon(t))
	require.NoError(t, err)
	for range slots {
		s, err := conn.OpenStream()
		require.NoError(t, err)
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		_, err = gateway.AcceptStream(soon(t))
		require.NoError(t, err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := conn.OpenStreamSync(soon(t))
		opened <- err
	}()
	require.NoError(t, gateway.CloseWithError(transport.Draining, ""))
	require.ErrorIs(t, eventually(t, opened, "OpenStream above the limit"), net.ErrClosed)
}

func TestCloseWriteDuringAWriteEndsAfterIt(t *testing.T) {
	agent, gateway := pair(t)
	writer, reader := open(t, agent, gateway, "x")
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB: more than a window
	wrote := make(chan error, 1)
	go func() {
		_, err := writer.Write(payload)
		wrote <- err
	}()
	got := make([]byte, 1+1<<20)
	_, err := io.ReadFull(reader, got)
	require.NoError(t, err)
	require.NoError(t, writer.CloseWrite())
	require.NoError(t, writer.CloseWrite())

	rest, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.NoError(t, <-wrote)
	assert.Equal(t, payload, append(got[1:], rest...))
	_, err = writer.Write([]byte("x"))
	assert.ErrorContains(t, err, "after CloseWrite")
}

func TestCloseWriteDuringAWriteThatFailsIsNoEnd(t *testing.T) {
	agent, gateway := pair(t)
	writer, reader := open(t, agent, gateway, "x")
	require.NoError(t, writer.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(writer, zeros{})
		wrote <- err
	}()
	_, err := io.ReadFull(reader, make([]byte, 1<<10))
	require.NoError(t, err)
	require.NoError(t, writer.CloseWrite())
	require.Error(t, eventually(t, wrote, "the Write"))

	_, err = io.Copy(io.Discard, reader)
	if err == nil {
		// CloseWrite came between two calls of Write, so all that was written is there.
		return
	}
	assert.ErrorIs(t, err, transport.Canceled)
}
