package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// halfCloser is a stream, or a TCP connection at the end of a tunnel.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// openHalves opens a stream and returns both ends of it.
type openHalves func(ctx context.Context) (client, server halfCloser, err error)

func TestAReplyAfterCloseWriteArrivesWhole(t *testing.T) {
	beside(t)
	paths := map[string]func(t *testing.T, c carrier) openHalves{
		"a stream": func(t *testing.T, c carrier) openHalves {
			pairs := manyPairs(t, c, 1)
			var round atomic.Int64
			return func(ctx context.Context) (client, server halfCloser, err error) {
				p := <-pairs
				defer func() { pairs <- p }()
				asking, answering := p.sides(int(round.Add(1)))
				s, err := openBetween(ctx, answering, asking, true)
				if err != nil {
					return nil, nil, err
				}
				return s.reading, s.writing, nil
			}
		},
		"a TCP target": func(t *testing.T, c carrier) openHalves {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
			g, _ := oneTunnel(t, c)
			dial := g.Dialer("agent-1", "torture")
			one := make(chan struct{}, 1) // an accepted connection is the one just dialled
			return func(ctx context.Context) (client, server halfCloser, err error) {
				one <- struct{}{}
				defer func() { <-one }()
				dialled, err := dial(ctx, "tcp", l.Addr().String())
				if err != nil {
					return nil, nil, err
				}
				accepted, err := l.Accept()
				if err != nil {
					return nil, nil, err
				}
				return dialled.(halfCloser), accepted.(halfCloser), nil
			}
		},
	}
	onEachCarrier(t, func(t *testing.T, c carrier) {
		for name, path := range paths {
			t.Run(name, func(t *testing.T) {
				open := path(t, c)
				inParallel(t, scaled(t, 10_000, 1000, "rounds"), 4, func(i int) error {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					client, server, err := open(ctx)
					if err != nil {
						return err
					}
					defer client.Close()
					defer server.Close()
					for _, end := range []net.Conn{client, server} {
						if err := end.SetDeadline(time.Now().Add(patience)); err != nil {
							return err
						}
					}
					return questionAndReply(client, server, i, int64(c.window/2))
				})
			})
		}
	})
}

// payload is the size of a message in a round, 1 byte to 8 MiB.
func payload(i int) int64 {
	size := int64(1) << (i % 17) // 64 KiB
	switch {
	case i%500 == 7:
		return 8 << 20
	case i%50 == 7:
		size = 1 << 20
	}
	return 1 + int64(i)*7919%size
}

// questionAndReply sends both, each ended by CloseWrite. Whoever reads may be late:
// when all was sent, or as much as arrives although nobody reads.
func questionAndReply(client, server halfCloser, round int, arrives int64) error {
	question, reply := payload(round), payload(round+round/17)
	type sent struct{ begun, done chan error }
	send := func(to halfCloser, c content, size int64) sent {
		s := sent{make(chan error, 1), make(chan error, 1)}
		go func() {
			w := &writer{Writer: to, content: c}
			first := min(size, arrives)
			err := w.write(first, anyPiece())
			if err == nil && size == first {
				err = to.CloseWrite()
			}
			s.begun <- err
			if err == nil && size > first {
				err = errors.Join(w.write(size-first, len(w.buf)), to.CloseWrite())
			}
			s.done <- err
		}()
		return s
	}
	receive := func(from io.Reader, c content, size int64, s sent, late bool) error {
		if late {
			if err := <-s.begun; err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
		r := &reader{Reader: from, content: c}
		if err := r.toEnd(); err != nil {
			return fmt.Errorf("read after %d of %d bytes: %w", r.offset, size, err)
		}
		if r.offset != size {
			return fmt.Errorf("a clean end after %d of %d bytes", r.offset, size)
		}
		return <-s.done
	}
	asked := send(client, content(round), question)
	if err := receive(server, content(round), question, asked, round%4 < 2); err != nil {
		return fmt.Errorf("question: %w", err)
	}
	answered := send(server, ^content(round), reply)
	if err := receive(client, ^content(round), reply, answered, round%8 < 6); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return nil
}
