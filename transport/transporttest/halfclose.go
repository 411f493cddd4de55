package transporttest

import (
	"fmt"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func halfCloseTests() []test {
	tests := []test{
		{"CloseWrite on a new stream is its end, and no data", emptyHalf},
		{"the peer's io.EOF stays, and this side's Read goes on", halfOpenRead},
		{"a second CloseWrite does nothing, a later Write fails", halfClosedWrite},
		{"a request and its answer, both ended by CloseWrite", requestResponse},
	}
	sizes := []int{1, 10_000, 64<<10 + 1, 256 << 10, 1 << 20, 8 << 20}
	for _, size := range sizes {
		tests = append(tests, test{
			fmt.Sprintf("%d bytes are read after their writer ended", size),
			func(t *trial) { lateRead(t, size) },
		})
	}
	return tests
}

// lateRead has the reader of a half-closed stream start after the end arrived.
// That is where data is lost by a mux that forgets a stream with its last frame.
func lateRead(t *trial, size int) {
	for _, replyAlone := range []bool{false, true} {
		t.eachWay(func(c oneWay) {
			opened, accepted := t.open(c)
			if replyAlone { // the other direction has ended before
				require.NoError(t, opened.CloseWrite())
				n, err := accepted.Read(make([]byte, 1))
				require.Zero(t, n)
				require.ErrorIs(t, err, io.EOF)
			}
			ended := async(func() error {
				if _, err := accepted.Write(pattern(0, size)); err != nil {
					return fmt.Errorf("write: %w", err)
				}
				return accepted.CloseWrite()
			})
			// A window full is written at once; more needs a reader, so it starts
			// when the window must be full.
			select {
			case err := <-ended:
				require.NoError(t, err, c.name)
				ended = nil
			case <-time.After(t.lateness(size)):
			}
			t.requireHealthy(c) // what was sent before it has arrived
			got, err := readAll(t, opened)
			require.NoError(t, err, c.name)
			require.Len(t, got, size, "%s: every byte arrives before io.EOF", c.name)
			requirePattern(t, got)
			if ended != nil {
				require.NoError(t, wait(t, ended, c.name+": the writer"), c.name)
			}
		})
	}
}

// lateness is how long a reader waits for its writer to end. What fits into any
// window must not need a reader.
func (t *trial) lateness(size int) time.Duration {
	if size <= 10_000 {
		return t.patience
	}
	return 100 * time.Millisecond
}

func readAll(t *trial, s transport.Stream) ([]byte, error) {
	t.Helper()
	type all struct {
		got []byte
		err error
	}
	r := wait(t, async(func() all {
		got, err := io.ReadAll(s)
		return all{got, err}
	}), "reading to the end")
	return r.got, r.err
}

func emptyHalf(t *trial) {
	t.eachWay(func(c oneWay) {
		ctx, cancel := t.soon()
		defer cancel()
		opened, err := c.opener.OpenStream(ctx)
		require.NoError(t, err)
		require.NoError(t, opened.CloseWrite())
		accepted, err := c.acceptor.AcceptStream(ctx)
		require.NoError(t, err, "%s: CloseWrite makes a new stream visible", c.name)
		got, err := readAll(t, accepted)
		require.NoError(t, err, c.name)
		require.Empty(t, got, c.name)
	})
}

func halfOpenRead(t *trial) {
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		require.NoError(t, opened.CloseWrite())
		for range 3 {
			n, err := accepted.Read(make([]byte, 8))
			require.Zero(t, n, c.name)
			require.Equal(t, io.EOF, err, "%s: io.EOF comes as it is, and again", c.name)
		}
		for i := range 3 {
			_, err := accepted.Write([]byte{byte(i)})
			require.NoError(t, err, c.name)
			var b [1]byte
			_, err = io.ReadFull(opened, b[:])
			require.NoError(t, err, c.name)
			require.EqualValues(t, i, b[0], c.name)
		}
	})
}

func halfClosedWrite(t *trial) {
	t.eachWay(func(c oneWay) {
		opened, _ := t.open(c)
		require.NoError(t, opened.CloseWrite())
		require.NoError(t, opened.CloseWrite(), "%s: again", c.name)
		n, err := opened.Write([]byte("late"))
		require.Error(t, err, "%s: Write after CloseWrite", c.name)
		require.Zero(t, n, c.name)
	})
}

func requestResponse(t *trial) {
	const size = 300_000
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		server := async(func() error {
			request, err := io.ReadAll(accepted)
			if err != nil {
				return fmt.Errorf("read the request: %w", err)
			}
			if _, err := accepted.Write(request); err != nil {
				return fmt.Errorf("write the answer: %w", err)
			}
			return accepted.CloseWrite()
		})
		_, err := opened.Write(pattern(0, size))
		require.NoError(t, err, c.name)
		require.NoError(t, opened.CloseWrite(), c.name)
		answer, err := readAll(t, opened)
		require.NoError(t, err, c.name)
		require.Len(t, answer, size, c.name)
		requirePattern(t, answer)
		require.NoError(t, wait(t, server, "the server"), c.name)
	})
}
