package mem_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

func TestAStreamIsInvisibleBeforeItsFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{})
		s, err := gateway.OpenStream(t.Context())
		require.NoError(t, err)
		_, err = s.Write(nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = agent.AcceptStream(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		require.NoError(t, s.Reset(transport.Denied))
		peer, err := agent.AcceptStream(t.Context())
		require.NoError(t, err)
		_, err = peer.Read(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Denied, Remote: true}, err)
	})
}

func TestASlotIsHeldUntilBothSidesHaveEndedTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{MaxStreams: 1})
		opened, accepted := open(t, gateway, agent)
		full := func(why string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := gateway.OpenStream(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded, why)
		}
		require.NoError(t, opened.CloseWrite())
		require.NoError(t, accepted.CloseWrite())
		full("both directions have ended, but neither side is done with the stream")
		require.NoError(t, opened.Reset(transport.Canceled))
		full("only the opener is done")
		require.NoError(t, accepted.Close())
		require.NoError(t, accepted.Close(), "again, which must not free a slot twice")
		open(t, gateway, agent)
		full("the slot has come back once")
		open(t, agent, gateway) // the other side has slots of its own
	})
}

func TestTheWindowIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{Window: 7})
		opened, accepted := open(t, gateway, agent)
		written := make(chan int, 1)
		go func() {
			n, _ := opened.Write([]byte("0123456789")) // the count says how it went
			written <- n
		}()
		synctest.Wait()
		require.Empty(t, written)
		buf := make([]byte, 100)
		n, err := accepted.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "0123456", string(buf[:n]))
		require.Equal(t, 10, <-written)
		n, err = accepted.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "789", string(buf[:n]))
	})
}

func TestAResetLosesWhatWasNotRead(t *testing.T) {
	agent, gateway := connect(t, &mem.Listener{})
	opened, accepted := open(t, gateway, agent)
	_, err := opened.Write([]byte("lost"))
	require.NoError(t, err)
	require.NoError(t, opened.Reset(transport.Internal))
	got, err := io.ReadAll(accepted)
	require.Empty(t, got)
	require.ErrorIs(t, err, transport.Internal)
}

func TestALocalCloseOfTheConnectionIsNoCleanEnd(t *testing.T) {
	agent, gateway := connect(t, &mem.Listener{})
	opened, accepted := open(t, gateway, agent)
	_, err := opened.Write([]byte("unread"))
	require.NoError(t, err)
	require.NoError(t, opened.CloseWrite())
	require.NoError(t, agent.CloseWithError(transport.Draining, ""))
	got, err := io.ReadAll(accepted)
	require.Empty(t, got)
	require.Equal(t, &transport.CloseError{Code: transport.Draining}, err)
}

func TestCloseWriteThatInterruptsAWriteIsAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{Window: 10})
		opened, accepted := open(t, gateway, agent)
		wrote := make(chan error, 1)
		go func() { _, err := opened.Write(make([]byte, 20)); wrote <- err }()
		synctest.Wait()
		require.NoError(t, opened.CloseWrite())
		require.ErrorIs(t, <-wrote, transport.Canceled)
		_, err := accepted.Read(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Canceled, Remote: true}, err)
	})
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	agent, gateway := connect(t, &mem.Listener{Window: 13})
	opened, accepted := open(t, gateway, agent)
	const writers, each, size = 8, 20, 50
	done := make(chan error, writers)
	for i := range writers {
		go func() {
			var err error
			for range each {
				if _, err = opened.Write([]byte(strings.Repeat(string(rune('a'+i)), size))); err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range writers * each {
		block := make([]byte, size)
		_, err := io.ReadFull(accepted, block)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat(string(block[:1]), size), string(block))
	}
	for range writers {
		require.NoError(t, <-done)
	}
}

func TestALongReasonIsCutBetweenCharacters(t *testing.T) {
	agent, gateway := connect(t, &mem.Listener{})
	reason := "x" + strings.Repeat("é", 100)
	require.NoError(t, gateway.CloseWithError(transport.Internal, reason))
	cause := &transport.CloseError{}
	ok := errors.As(context.Cause(agent.Context()), &cause)
	require.True(t, ok)
	require.Len(t, cause.Reason, 119)
	require.True(t, utf8.ValidString(cause.Reason))
	require.True(t, strings.HasPrefix(reason, cause.Reason))
}
