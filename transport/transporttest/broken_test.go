package transporttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

// memory is a harness that keeps every promise.
func memory() Harness {
	return Harness{
		Connect: func(tb testing.TB) Pair {
			l := &mem.Listener{}
			dialed, err := (&mem.Dialer{Listener: l}).Dial(tb.Context(), "")
			require.NoError(tb, err)
			accepted, err := l.Accept(tb.Context())
			require.NoError(tb, err)
			return Pair{Dialed: dialed, Accepted: accepted, Cut: l.Cut}
		},
		MaxStreams:  1024,
		MaxBuffered: 256 << 10,
	}
}

// broken is a transport with one fault; nil functions have none.
type broken struct {
	transport.Mux
	open   func(context.Context, transport.Mux) (transport.Stream, error)
	stream func(transport.Stream) transport.Stream
	close  func(m transport.Mux, code transport.Code, reason string) error
	state  func() tls.ConnectionState
}

func (m *broken) OpenStream(ctx context.Context) (transport.Stream, error) {
	if m.open != nil {
		return m.open(ctx, m.Mux)
	}
	return m.wrap(m.Mux.OpenStream(ctx))
}

func (m *broken) AcceptStream(ctx context.Context) (transport.Stream, error) {
	return m.wrap(m.Mux.AcceptStream(ctx))
}

func (m *broken) wrap(s transport.Stream, err error) (transport.Stream, error) {
	if err != nil || m.stream == nil {
		return s, err
	}
	return m.stream(s), nil
}

func (m *broken) ConnectionState() tls.ConnectionState {
	if m.state != nil {
		return m.state()
	}
	return m.Mux.ConnectionState()
}

func (m *broken) CloseWithError(code transport.Code, reason string) error {
	if m.close != nil {
		return m.close(m.Mux, code, reason)
	}
	return m.Mux.CloseWithError(code, reason)
}

// faultyStream is a stream with one fault.
type faultyStream struct {
	transport.Stream
	read         func(p []byte) (int, error)
	write        func(p []byte) (int, error)
	close        func() error
	closeWrite   func() error
	reset        func(transport.Code) error
	readDeadline func(time.Time) error
	remoteAddr   func() net.Addr
}

func (s *faultyStream) Read(p []byte) (int, error) {
	if s.read != nil {
		return s.read(p)
	}
	return s.Stream.Read(p)
}

func (s *faultyStream) Write(p []byte) (int, error) {
	if s.write != nil {
		return s.write(p)
	}
	return s.Stream.Write(p)
}

func (s *faultyStream) Close() error {
	if s.close != nil {
		return s.close()
	}
	return s.Stream.Close()
}

func (s *faultyStream) CloseWrite() error {
	if s.closeWrite != nil {
		return s.closeWrite()
	}
	return s.Stream.CloseWrite()
}

func (s *faultyStream) Reset(code transport.Code) error {
	if s.reset != nil {
		return s.reset(code)
	}
	return s.Stream.Reset(code)
}

func (s *faultyStream) SetReadDeadline(at time.Time) error {
	if s.readDeadline != nil {
		return s.readDeadline(at)
	}
	return s.Stream.SetReadDeadline(at)
}

func (s *faultyStream) RemoteAddr() net.Addr {
	if s.remoteAddr != nil {
		return s.remoteAddr()
	}
	return s.Stream.RemoteAddr()
}

// onStreams is a fault of every stream.
func onStreams(spoil func(*faultyStream)) func() broken {
	return func() broken {
		return broken{stream: func(s transport.Stream) transport.Stream {
			f := &faultyStream{Stream: s}
			spoil(f)
			return f
		}}
	}
}

// endsAsEOF takes the end of the connection for the end of the data.
func endsAsEOF(s *faultyStream) {
	s.read = func(p []byte) (int, error) {
		n, err := s.Stream.Read(p)
		if errors.Is(err, net.ErrClosed) {
			err = io.EOF
		}
		return n, err
	}
}

// finalized closes its stream when it is collected. The methods of the stream do
// not keep it alive, as those of a struct that embeds a pointer do not.
type finalized struct{ *copied }

type copied struct{ transport.Stream }

func (s *copied) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s.Stream})
}

// faults are ways to break a promise that real muxes have broken, one at least
// for each.
var faults = []struct {
	promise string
	name    string
	fault   func() broken // makes one for each connection
}{
	{"Identity", "no certificate", func() broken {
		return broken{state: func() tls.ConnectionState { return tls.ConnectionState{HandshakeComplete: true} }}
	}},
	{"Addresses", "a stream without an address", onStreams(func(s *faultyStream) {
		s.remoteAddr = func() net.Addr { return nil }
	})},
	{"HalfClose", "CloseWrite stops reading", onStreams(func(s *faultyStream) {
		s.closeWrite = s.Stream.Close
	})},
	{"HalfClose", "the end overtakes the data", onStreams(func(s *faultyStream) {
		s.write = func(p []byte) (int, error) {
			if len(p) == 1 {
				return s.Stream.Write(p)
			}
			return len(p), nil
		}
	})},
	{"Close", "Close is a reset", onStreams(func(s *faultyStream) {
		s.close = func() error { return s.Stream.Reset(transport.Canceled) }
	})},
	{"Close", "Close ends one direction only", onStreams(func(s *faultyStream) {
		s.close = func() error { return s.Stream.CloseWrite() }
	})},
	{"Reset", "codes get lost", onStreams(func(s *faultyStream) {
		s.reset = func(transport.Code) error { return s.Stream.Reset(transport.Internal) }
	})},
	{"Reset", "Reset is a clean end", onStreams(func(s *faultyStream) {
		s.reset = func(transport.Code) error { return s.Stream.Close() }
	})},
	{"Deadlines", "a deadline cannot be cleared", onStreams(func(s *faultyStream) {
		s.readDeadline = func(at time.Time) error {
			if at.IsZero() {
				return nil
			}
			return s.Stream.SetReadDeadline(at)
		}
	})},
	{"Deadlines", "a timed-out Write hides what it sent", onStreams(func(s *faultyStream) {
		s.write = func(p []byte) (int, error) {
			n, err := s.Stream.Write(p)
			if err != nil {
				n = 0
			}
			return n, err
		}
	})},
	{"Writes", "an empty Write is an end", onStreams(func(s *faultyStream) {
		s.write = func(p []byte) (int, error) {
			if len(p) == 0 {
				return 0, s.Stream.CloseWrite()
			}
			return s.Stream.Write(p)
		}
	})},
	{"Writes", "a Write keeps a reference to the slice", func() broken {
		return broken{stream: func(s transport.Stream) transport.Stream {
			f := &faultyStream{Stream: s}
			var last []byte // referred to until the next Write
			flush := func() error {
				_, err := s.Write(last)
				last = nil
				return err
			}
			f.write = func(p []byte) (int, error) {
				if err := flush(); err != nil {
					return 0, err
				}
				if len(p) < 1000 {
					return s.Write(p)
				}
				last = p
				return len(p), nil
			}
			f.closeWrite = func() error { return errors.Join(flush(), s.CloseWrite()) }
			f.close = func() error { return errors.Join(flush(), s.Close()) }
			return f
		}}
	}},
	{"Backpressure", "a buffer without a bound", onStreams(func(s *faultyStream) {
		s.write = func(p []byte) (int, error) {
			if len(p) == 1 {
				return s.Stream.Write(p)
			}
			return len(p), nil
		}
	})},
	{"Stall", "one blocked Write blocks all", func() broken {
		var one sync.Mutex
		return broken{stream: func(s transport.Stream) transport.Stream {
			f := &faultyStream{Stream: s}
			f.write = func(p []byte) (int, error) {
				one.Lock()
				defer one.Unlock()
				return s.Write(p)
			}
			return f
		}}
	}},
	{"Context", "OpenStream does not look at ctx", func() broken {
		return broken{open: func(_ context.Context, m transport.Mux) (transport.Stream, error) {
			return m.OpenStream(context.Background())
		}}
	}},
	{"CloseCause", "reasons get lost", func() broken {
		return broken{close: func(m transport.Mux, code transport.Code, _ string) error {
			return m.CloseWithError(code, "")
		}}
	}},
	{"CloseCause", "codes get lost", func() broken {
		return broken{close: func(m transport.Mux, _ transport.Code, reason string) error {
			return m.CloseWithError(transport.NoError, reason)
		}}
	}},
	{"CloseEndsAll", "the end of the connection is a clean end", onStreams(endsAsEOF)},
	{"Cut", "a cut is a clean end", onStreams(endsAsEOF)},
	{"Scale", "large messages arrive damaged", onStreams(func(s *faultyStream) {
		s.write = func(p []byte) (int, error) {
			if len(p) < 200 {
				return s.Stream.Write(p)
			}
			p = bytes.Clone(p)
			p[len(p)/2]++
			return s.Stream.Write(p)
		}
	})},
	{"Concurrency", "a second CloseWithError fails", func() broken {
		var once sync.Once
		return broken{close: func(m transport.Mux, code transport.Code, reason string) error {
			err := errors.New("already closed")
			once.Do(func() { err = m.CloseWithError(code, reason) })
			return err
		}}
	}},
	{"GC", "a finalizer closes what is in use", func() broken {
		return broken{stream: func(s transport.Stream) transport.Stream {
			f := &finalized{&copied{s}}
			runtime.SetFinalizer(f, func(f *finalized) { _ = f.Close() })
			return f
		}}
	}},
	{"Leaks", "a goroutine for each stream", func() broken {
		return broken{open: func(ctx context.Context, m transport.Mux) (transport.Stream, error) {
			go func() { <-m.Context().Done() }()
			return m.OpenStream(ctx)
		}}
	}},
	{"MaxStreams", "no limit", func() broken {
		return broken{open: func(ctx context.Context, m transport.Mux) (transport.Stream, error) {
			s, err := m.OpenStream(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return &faultyStream{write: func([]byte) (int, error) { return 0, net.ErrClosed }}, nil
			}
			return s, err
		}}
	}},
}

// spoiled is a harness whose connections have the fault on both sides.
func spoiled(fault func() broken) Harness {
	h := memory()
	connect := h.Connect
	h.Connect = func(tb testing.TB) Pair {
		p := connect(tb)
		for _, side := range []*transport.Mux{&p.Dialed, &p.Accepted} {
			m := fault()
			m.Mux = *side
			*side = &m
		}
		return p
	}
	return h
}

// find returns the promise of that name.
func find(t *testing.T, h Harness, name string) promise {
	t.Helper()
	for _, p := range promises(h) {
		if p.name == name {
			return p
		}
	}
	t.Fatalf("no promise %s", name)
	return promise{}
}

func TestEveryBrokenPromiseIsNoticed(t *testing.T) {
	for _, f := range faults {
		t.Run(f.promise+"/"+f.name, func(t *testing.T) {
			t.Parallel() // some faults are hangs, which take their time to show
			h := spoiled(f.fault)
			for _, x := range find(t, h, f.promise).tests {
				trial := newTrial(t, h)
				trial.patience = 2 * time.Second
				if failures := trial.run(x.run); len(failures) > 0 {
					t.Logf("%s: %.300s", x.name, failures[0])
					return
				}
			}
			t.Errorf("the suite has not noticed that the promise %s is broken: %s", f.promise, f.name)
		})
	}
}

func TestEveryPromiseHasAFault(t *testing.T) {
	broken := map[string]bool{}
	for _, f := range faults {
		broken[f.promise] = true
	}
	for _, p := range promises(memory()) {
		require.True(t, broken[p.name], "%s: nothing proves that its tests can fail", p.name)
	}
}
