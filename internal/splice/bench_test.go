package splice_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

// benchmarkPair returns the outer ends of a running Join.
func benchmarkPair(b *testing.B) (caller transport.Stream, target net.Conn) {
	b.Helper()
	fatal := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	listener := &mem.Listener{}
	dialed, err := (&mem.Dialer{Listener: listener}).Dial(b.Context(), "")
	fatal(err)
	taken, err := listener.Accept(b.Context())
	fatal(err)
	caller, err = dialed.OpenStream(b.Context())
	fatal(err)
	_, err = caller.Write([]byte{0})
	fatal(err)
	stream, err := taken.AcceptStream(b.Context())
	fatal(err)
	_, err = io.ReadFull(stream, make([]byte, 1))
	fatal(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(err)
	near, err := net.Dial("tcp", ln.Addr().String())
	fatal(err)
	target, err = ln.Accept()
	fatal(err)
	_ = ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		splice.Join(context.Background(), stream, near)
	}()
	b.Cleanup(func() {
		_ = target.Close()
		_ = dialed.CloseWithError(transport.NoError, "")
		<-done
		_ = listener.Close()
	})
	return caller, target
}

func BenchmarkBulk(b *testing.B) {
	for name, up := range map[string]bool{"ToTarget": true, "FromTarget": false} {
		b.Run(name, func(b *testing.B) {
			caller, target := benchmarkPair(b)
			from, to := net.Conn(caller), target
			if !up {
				from, to = target, caller
			}
			chunk := make([]byte, 128<<10)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			go func() {
				for {
					if _, err := from.Write(chunk); err != nil {
						return
					}
				}
			}()
			got := make([]byte, len(chunk))
			for b.Loop() {
				if _, err := io.ReadFull(to, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	caller, target := benchmarkPair(b)
	go func() {
		_, _ = io.Copy(struct{ io.Writer }{target}, target)
	}()
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := caller.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(caller, p); err != nil {
			b.Fatal(err)
		}
	}
}
