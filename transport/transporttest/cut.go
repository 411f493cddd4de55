package transporttest

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func cutTests() []test {
	return []test{
		{"an idle connection ends with an error on both sides", cutIdle},
		{"every pending call ends with that error", cutPending},
		{"a transfer ends with an error after what had arrived, never with io.EOF", cutTransfers},
		{"CloseWithError and Close return after a cut", closeAfterCut},
		{"what one side does after a cut does not reach the other", endAfterCut},
	}
}

// requireLost waits until m has noticed that its carrier is gone.
func requireLost(t *trial, m transport.Mux, what string) {
	t.Helper()
	cause := causeOf(t, m, what)
	require.NoError(t, lost(cause), what)
}

// lost says what is wrong with the error of a call on a connection that was cut.
func lost(err error) error {
	var closed *transport.CloseError
	switch {
	case err == nil:
		return errors.New("no error at all")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("an end of data: %w", err)
	case !errors.As(err, &closed):
		return fmt.Errorf("not a *transport.CloseError: %T: %w", err, err)
	case !closed.Remote:
		return fmt.Errorf("Remote is not set: %w", err)
	case closed.Code != transport.ConnectionLost && closed.Code != transport.Timeout:
		return fmt.Errorf("the code is neither ConnectionLost nor Timeout: %w", err)
	}
	return nil
}

func cutIdle(t *trial) {
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		c.cut()
		c.cut() // again is fine
		for name, x := range map[string]struct {
			m transport.Mux
			s transport.Stream
		}{"opener": {c.opener, opened}, "acceptor": {c.acceptor, accepted}} {
			what := c.name + ": " + name
			requireLost(t, x.m, what)
			require.NoError(t, lost(wait(t, pendingRead(x.s), what+": Read").err), "%s: Read", what)
			_, err := x.s.Write(make([]byte, 1))
			require.NoError(t, lost(err), "%s: Write", what)
			_, err = x.m.OpenStream(t.Context())
			require.NoError(t, lost(err), "%s: OpenStream", what)
			_, err = x.m.AcceptStream(t.Context())
			require.NoError(t, lost(err), "%s: AcceptStream", what)
		}
	})
}

func cutPending(t *trial) {
	t.eachWay(func(c oneWay) {
		calls := allPending(t, c)
		c.cut()
		for _, call := range calls {
			require.NoError(t, lost(wait(t, call.err, call.what)), call.what)
		}
	})
}

// cutTransfers cuts connections at arbitrary moments of a transfer, many at a
// time, since a carrier may need some silence to notice.
func cutTransfers(t *trial) {
	rounds := 32
	if testing.Short() {
		rounds = 8
	}
	var ends []pending
	for round := range rounds {
		p := t.connect()
		c := openedByDialed(p)
		if round%2 == 1 {
			c = openedByAccepted(p)
		}
		writer, reader := t.open(c)
		if round%4 >= 2 {
			writer, reader = reader, writer
		}
		name := fmt.Sprintf("round %d", round)
		// Messages of one size, so that many cuts fall on the boundary of a
		// frame, where it is easiest to take them for an end.
		size := 100 << (round % 10)
		ends = append(ends,
			pending{name + ": Write", async(func() error { return writeUntilError(sized{writer, size}) })},
			pending{name + ": Read", async(func() error { return readUntilError(reader, round*3000, c.cut) })})
	}
	for _, end := range ends {
		require.NoError(t, lost(wait(t, end.err, end.what)), end.what)
	}
}

// sized writes pieces of the pattern instead of what it is given.
type sized struct {
	transport.Stream
	size int
}

func (s sized) Write([]byte) (int, error) { return s.Stream.Write(pattern(0, s.size)) }

// readUntilError reads, calls cut after the given number of bytes, and goes on.
func readUntilError(s transport.Stream, after int, cut func()) error {
	buf := make([]byte, 10_000)
	total := 0
	for {
		n, err := s.Read(buf)
		total += n
		if err != nil {
			return err
		}
		if total > after && cut != nil {
			cut()
			cut = nil
		}
	}
}

func closeAfterCut(t *trial) {
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		_, err := fill(opened, shortly, t.most())
		require.NoError(t, err, c.name)
		c.cut()
		// At once, when this side may not have noticed yet.
		for what, f := range map[string]func() error{
			"Close":          opened.Close,
			"Reset":          func() error { return accepted.Reset(transport.Canceled) },
			"CloseWithError": func() error { return c.opener.CloseWithError(transport.NoError, "") },
		} {
			start := time.Now()
			_ = wait(t, async(f), c.name+": "+what+" after a cut") // whether it fails is open
			require.Less(t, time.Since(start), t.patience, "%s: %s after a cut", c.name, what)
		}
		causeOf(t, c.acceptor, c.name)
	})
}

// endAfterCut ends a stream on one side once both have lost the connection: a
// handler that returns on the error of its Read does that.
func endAfterCut(t *trial) {
	ends := map[string]func(s transport.Stream){
		"Close":      func(s transport.Stream) { _ = s.Close() },
		"CloseWrite": func(s transport.Stream) { _ = s.CloseWrite() },
		"Reset":      func(s transport.Stream) { _ = s.Reset(transport.Denied) },
	}
	t.eachWay(func(c oneWay) {
		type pair struct{ here, there transport.Stream }
		streams := map[string]pair{}
		for what := range ends {
			opened, accepted := t.open(c)
			streams[what] = pair{opened, accepted}
		}
		c.cut()
		requireLost(t, c.opener, c.name+": opener")
		requireLost(t, c.acceptor, c.name+": acceptor")
		for what, end := range ends {
			end(streams[what].there)
			err := wait(t, pendingRead(streams[what].here), c.name+": Read").err
			require.NoError(t, lost(err), "%s: Read after %s of the other side", c.name, what)
		}
	})
}
