//go:build linux

package torture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// message is the bytes of one, well-formed or not.
func message(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// tunnelAttacks come from a peer that has a certificate and knows the carrier.
var tunnelAttacks = []attack{
	{name: "no control stream", run: func(ctx context.Context, g *ground) error {
		m, err := g.connect(ctx)
		if err != nil {
			return err
		}
		return closesMux(ctx, m)
	}},
	{name: "half a hello", run: onFirstStream(message("{")[:3])},
	{name: "garbage for hello", run: onFirstStream([]byte("GET / HTTP/1.1\r\n\r\n"))},
	{name: "a hello of 4 GiB", run: onFirstStream([]byte{0xff, 0xff, 0xff, 0xff})},
	{name: "a ping for hello", run: onFirstStream(message(`{"type":"ping","ping":{"seq":1}}`))},
	{name: "streams before the hello", run: func(ctx context.Context, g *ground) error {
		m, err := g.connect(ctx)
		if err != nil {
			return err
		}
		for range 1000 {
			s, err := m.OpenStream(ctx)
			if err != nil {
				break
			}
			_, _ = s.Write([]byte{0})
		}
		return closesMux(ctx, m)
	}},

	{name: "garbage on the control stream", run: afterHello(repeated([]byte("garbage!"), 1))},
	{name: "a control frame of 4 GiB", run: afterHello(repeated([]byte{0xff, 0xff, 0xff, 0xff}, 1))},
	{name: "a second hello", run: afterHello(repeated(message(`{"type":"hello","hello":{"instance":"again"}}`), 1))},
	{name: "deep JSON", run: afterHello(repeated(message(string(bytes.Repeat([]byte("["), 60_000))), 1))},
	{name: "a control stream that ends", run: afterHello(func(_ context.Context, _ transport.Mux, control transport.Stream) error {
		return control.CloseWrite()
	})},
	// A pong may wait for 10 s until it counts as a write that fails.
	{name: "pings without reading the pongs", within: 20 * time.Second, run: afterHello(func(_ context.Context, _ transport.Mux, control transport.Stream) error {
		_ = control.SetDeadline(time.Now().Add(patience))
		for pings := bytes.Repeat(message(`{"type":"ping","ping":{"seq":1}}`), 100); ; {
			if _, err := control.Write(pings); err != nil {
				return nil // the connection is gone; or the deadline, which closesMux notices
			}
		}
	})},
	{name: "a flood of frames of no known type", endures: true, run: afterHello(func(ctx context.Context, m transport.Mux, control transport.Stream) error {
		return try(ctx, m, 20_000, func(int) error {
			_, err := control.Write(message(`{"type":"x","x":{}}`))
			return err
		})
	})},
	{name: "a flood of pings whose pongs are read", endures: true, run: afterHello(func(ctx context.Context, m transport.Mux, control transport.Stream) error {
		go func() { _, _ = io.Copy(io.Discard, control) }()
		return try(ctx, m, 20_000, func(int) error {
			_, err := control.Write(message(`{"type":"ping","ping":{"seq":1}}`))
			return err
		})
	})},

	{name: "streams without a header", endures: true, run: afterHello(func(ctx context.Context, m transport.Mux, _ transport.Stream) error {
		return try(ctx, m, 1000, func(int) error {
			s, err := m.OpenStream(ctx)
			if err == nil {
				_, err = s.Write([]byte{0})
			}
			return err
		})
	})},
	{name: "headers of garbage", endures: true, run: afterHello(func(ctx context.Context, m transport.Mux, _ transport.Stream) error {
		bodies := [][]byte{
			[]byte("GET / HTTP/1.1\r\n\r\n"),
			{0xff, 0xff, 0xff, 0xff},
			message("{}"), message("null"), message(`{"service":"\u0000"}`),
			message(`{"service":"tcp","address":"a:1","hop":9}`), message(string(bytes.Repeat([]byte("["), wire.MaxHeader))),
		}
		return try(ctx, m, 5000, func(i int) error {
			s, err := m.OpenStream(ctx)
			if err != nil {
				return err
			}
			defer s.Close()
			_ = s.SetDeadline(time.Now().Add(patience))
			if _, err := s.Write(bodies[i%len(bodies)]); err != nil {
				return nil // the reset was faster
			}
			if _, err := s.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				return errors.New("a bad header was taken for a good one")
			}
			return nil
		})
	})},
	{name: "opens and resets without end", endures: true, run: afterHello(func(ctx context.Context, m transport.Mux, _ transport.Stream) error {
		opens := 20_000
		if full {
			opens = 1_000_000
		}
		return try(ctx, m, opens, func(int) error {
			s, err := m.OpenStream(ctx)
			if err != nil {
				return err
			}
			_, _ = s.Write([]byte{0})
			return s.Reset(transport.Canceled)
		})
	})},
	{name: "a reader that never reads", endures: true, run: afterHello(flooding(floodService))},
	{name: "a sender that never stops", endures: true, run: afterHello(flooding(sinkService))},
	{name: "a sender of echoes that never reads", endures: true, run: afterHello(flooding(echoService))},
}

// onFirstStream sends bytes on the first stream.
func onFirstStream(bytes []byte) func(context.Context, *ground) error {
	return func(ctx context.Context, g *ground) error {
		m, err := g.connect(ctx)
		if err != nil {
			return err
		}
		s, err := m.OpenStream(ctx)
		if err != nil {
			return err
		}
		if _, err := s.Write(bytes); err != nil {
			return err
		}
		return closesMux(ctx, m)
	}
}

// errEndured ends an attack that the gateway has to bear.
var errEndured = errors.New("endured")

// afterHello attacks after the handshake of the tunnel, and then waits for the end.
func afterHello(attack func(context.Context, transport.Mux, transport.Stream) error) func(context.Context, *ground) error {
	return func(ctx context.Context, g *ground) error {
		m, err := g.connect(ctx)
		if err != nil {
			return err
		}
		control, err := m.OpenStream(ctx)
		if err != nil {
			return err
		}
		if err := wire.WriteFrame(control, wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{Instance: "mallory"}}); err != nil {
			return err
		}
		if f, err := wire.ReadFrame(control); err != nil || f.Type != wire.TypeWelcome {
			return fmt.Errorf("no welcome: %w", err)
		}
		err = attack(ctx, m, control)
		if errors.Is(err, errEndured) {
			return m.CloseWithError(transport.NoError, "")
		}
		if err != nil {
			return err
		}
		return closesMux(ctx, m)
	}
}

func repeated(b []byte, n int) func(context.Context, transport.Mux, transport.Stream) error {
	return func(_ context.Context, _ transport.Mux, control transport.Stream) error {
		for range n {
			if _, err := control.Write(b); err != nil {
				return err
			}
		}
		return nil
	}
}

// try does something n times, or until the gateway closes the connection.
func try(ctx context.Context, m transport.Mux, n int, do func(i int) error) error {
	for i := range n {
		if err := do(i); m.Context().Err() != nil {
			return nil //nolint:nilerr // it was closed, which is as good
		} else if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errEndured
}

// flooding opens 60 streams of a service, writes to them as fast as can be and does
// not read.
func flooding(service string) func(context.Context, transport.Mux, transport.Stream) error {
	return func(ctx context.Context, m transport.Mux, _ transport.Stream) error {
		err := many(60, func(int) error {
			s, err := m.OpenStream(ctx)
			if err != nil {
				return err
			}
			if err := wire.WriteHeader(s, wire.Header{Service: service}); err != nil {
				return err
			}
			if _, err := wire.ReadReply(s); err != nil {
				return err
			}
			_ = s.SetWriteDeadline(time.Now().Add(time.Second))
			for buf := make([]byte, 16<<10); err == nil; {
				_, err = s.Write(buf)
			}
			return nil
		})
		return errors.Join(err, errEndured)
	}
}
