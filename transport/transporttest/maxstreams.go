package transporttest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func maxStreamsTests(h Harness) []test {
	if h.MaxStreams == 0 {
		return nil
	}
	return []test{
		{"OpenStream waits at the limit and goes on when a stream ends", limitWaits},
		{"a slot comes back however its stream ended", slotsComeBack},
	}
}

// exhaust opens as many streams as the limit allows. Nobody accepts them.
func (t *trial) exhaust(c oneWay) []transport.Stream {
	t.Helper()
	streams := make([]transport.Stream, t.harness.MaxStreams)
	for i := range streams {
		s, err := openGreeted(t, c.opener)
		require.NoError(t, err, "%s: stream %d of %d", c.name, i+1, len(streams))
		streams[i] = s
	}
	return streams
}

func limitWaits(t *trial) {
	t.eachWay(func(c oneWay) {
		opened := t.exhaust(c)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := c.opener.OpenStream(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "%s: OpenStream above the limit of %d", c.name, len(opened))

		ctx, cancel = t.soon()
		defer cancel()
		open := async(func() error {
			s, err := c.opener.OpenStream(ctx)
			if err != nil {
				return err
			}
			return s.Close()
		})
		stays(t, open, shortly, c.name+": OpenStream above the limit returned")
		accepted := t.acceptOnly(c.acceptor) // the first that was opened
		require.NoError(t, opened[0].Close(), c.name)
		require.NoError(t, accepted.Close(), c.name)
		require.NoError(t, wait(t, open, c.name+": OpenStream after a stream ended"), c.name)
	})
}

func slotsComeBack(t *trial) {
	ends := []struct {
		name string
		end  func(opened, accepted transport.Stream) error
	}{
		{"closed by both", func(o, a transport.Stream) error { _ = o.Close(); return a.Close() }},
		{"closed by the acceptor first", func(o, a transport.Stream) error { _ = a.Close(); return o.Close() }},
		{"reset by the opener", func(o, a transport.Stream) error { _ = o.Reset(transport.Canceled); return a.Close() }},
		{"reset by the acceptor", func(o, a transport.Stream) error { _ = a.Reset(transport.Denied); return o.Close() }},
		{"reset by both", func(o, a transport.Stream) error {
			_ = o.Reset(transport.Canceled)
			return a.Reset(transport.Denied)
		}},
		{"closed with data unread", func(o, a transport.Stream) error {
			_, _ = o.Write(make([]byte, 1000))
			_, _ = a.Write(make([]byte, 1000))
			_ = o.Close()
			return a.Close()
		}},
	}
	// Each kind of end must have held every slot once, so no more than a few
	// thousand streams; and so each kind for one of the sides only.
	rounds := min(t.harness.MaxStreams+10, 2000)
	t.eachWay(func(c oneWay) {
		for i, e := range ends {
			if (i%2 == 0) != c.byDialed {
				continue
			}
			for i := range rounds {
				s, err := openGreeted(t, c.opener)
				require.NoError(t, err, "%s: stream %d after all before it were %s", c.name, i+1, e.name)
				require.NoError(t, e.end(s, t.acceptOnly(c.acceptor)), "%s: %s", c.name, e.name)
			}
		}
	})
}
