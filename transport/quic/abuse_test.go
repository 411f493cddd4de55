package quic_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// heap is what lives, after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// attack is an authenticated peer that does its worst for as long as it may.
type attack struct {
	name string
	do   func(ctx context.Context, t *testing.T, conn *quicgo.Conn)
	// serve is what the victim does with the connection; nil: nothing at all.
	serve func(ctx context.Context, m transport.Mux)
	// breaks is set when the attack breaks the protocol: the connection must end.
	breaks bool
}

func attacks() []attack {
	write := func(s *quicgo.Stream, size int) error {
		b := make([]byte, size)
		for {
			if _, err := s.Write(b); err != nil {
				return err
			}
		}
	}
	onEveryStream := func(ctx context.Context, conn *quicgo.Conn, do func(*quicgo.Stream)) {
		var streams sync.WaitGroup
		defer streams.Wait()
		for {
			s, err := conn.OpenStreamSync(ctx)
			if err != nil {
				return
			}
			streams.Go(func() { do(s) })
		}
	}
	return []attack{
		{
			name: "sends more than a window", breaks: true,
			do: func(ctx context.Context, t *testing.T, conn *quicgo.Conn) {
				s, err := conn.OpenStreamSync(ctx)
				require.NoError(t, err)
				_, _ = s.Write([]byte("x"))
				forgetWindows(t, conn, s)
				_ = write(s, 64<<10)
			},
		},
		{
			name: "opens more streams than there is credit for", breaks: true,
			do: func(_ context.Context, t *testing.T, conn *quicgo.Conn) {
				forgetStreamLimit(t, conn)
				for range 1_000_000 {
					s, err := conn.OpenStream()
					if err != nil {
						return
					}
					_, _ = s.Write([]byte("x"))
				}
			},
		},
		{
			name: "opens and resets streams, a million of them if it can",
			do: func(ctx context.Context, _ *testing.T, conn *quicgo.Conn) {
				for range 1_000_000 {
					s, err := conn.OpenStreamSync(ctx)
					if err != nil {
						return
					}
					_, _ = s.Write([]byte("x"))
					s.CancelWrite(1)
					s.CancelRead(1)
				}
			},
		},
		{
			name: "opens and resets streams that are accepted",
			do: func(ctx context.Context, _ *testing.T, conn *quicgo.Conn) {
				for {
					s, err := conn.OpenStreamSync(ctx)
					if err != nil {
						return
					}
					_, _ = s.Write([]byte("x"))
					s.CancelWrite(1)
					s.CancelRead(1)
				}
			},
			serve: func(ctx context.Context, m transport.Mux) {
				for {
					s, err := m.AcceptStream(ctx)
					if err != nil {
						return
					}
					_ = s.Close()
				}
			},
		},
		{
			name: "never stops sending on every stream",
			do: func(ctx context.Context, _ *testing.T, conn *quicgo.Conn) {
				var last *quicgo.Stream
				for full := make([]byte, 16<<10); ; { // as much as a stream takes
					s, err := conn.OpenStreamSync(ctx)
					if err != nil {
						break
					}
					_, _ = s.Write(full)
					last = s
				}
				_ = write(last, 1<<10)
			},
		},
		{
			name: "never reads what is sent on its streams",
			do: func(ctx context.Context, _ *testing.T, conn *quicgo.Conn) {
				onEveryStream(ctx, conn, func(s *quicgo.Stream) { _, _ = s.Write([]byte("x")) })
			},
			serve: func(ctx context.Context, m transport.Mux) {
				b := make([]byte, 64<<10)
				var streams sync.WaitGroup
				defer streams.Wait()
				for {
					s, err := m.AcceptStream(ctx)
					if err != nil {
						return
					}
					streams.Go(func() {
						defer s.Close()
						for {
							if _, err := s.Write(b); err != nil {
								return
							}
						}
					})
				}
			},
		},
	}
}

// The attacker is in this process, too: its memory counts as growth, which makes
// the bound stricter.
func TestAHostilePeerIsBoundedAndDisturbsNobody(t *testing.T) {
	const (
		lasts     = time.Second
		mayGrowBy = 32 << 20
	)
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			ca := testca.New(t)
			l := listen(t, ca, quic.ListenConfig{})
			agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			defer cancel()
			live := pulse(ctx, t, agent, gateway)

			conn, err := hostileAgent(t, ca, l, "outgate/1")
			require.NoError(t, err)
			victim, err := l.Accept(soon(t))
			require.NoError(t, err)
			t.Cleanup(func() { _ = victim.CloseWithError(transport.NoError, "") })
			goroutines, before := runtime.NumGoroutine(), heap()

			var both sync.WaitGroup
			began := time.Now()
			both.Go(func() { a.do(ctx, t, conn) })
			if a.serve != nil {
				both.Go(func() { a.serve(ctx, victim) })
			}
			select {
			case <-ctx.Done():
			case <-victim.Context().Done():
			}
			grown := heap() - before
			t.Logf("grown by %d KiB", grown>>10)
			assert.LessOrEqual(t, grown, int64(mayGrowBy))
			// Each of at most 1024 streams has one on the attacker's side and one on the
			// victim's.
			assert.LessOrEqual(t, runtime.NumGoroutine()-goroutines, 2*1024+100)
			if a.breaks {
				eventually(t, victim.Context().Done(), "the end of the connection")
				assert.Less(t, time.Since(began), 5*time.Second)
				assert.ErrorIs(t, context.Cause(victim.Context()), transport.Protocol)
				cancel()
			}
			live()
			_ = conn.CloseWithError(0, "")
			eventually(t, victim.Context().Done(), "the end of the connection")
			both.Wait()
			requireServing(t, ca, l, agent, gateway)
		})
	}
}

// pulse sends small messages to and fro on a stream until ctx ends. The function
// that it returns waits for that and fails the test if one took too long.
func pulse(ctx context.Context, t *testing.T, agent, gateway transport.Mux) (live func()) {
	t.Helper()
	opened, accepted := open(t, gateway, agent, "pulse")
	_, err := io.ReadFull(accepted, make([]byte, len("pulse")))
	require.NoError(t, err)
	var slowest atomic.Int64
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(struct{ io.Writer }{accepted}, struct{ io.Reader }{accepted})
		done <- errors.Join(err, accepted.Close())
	}()
	go func() {
		b := make([]byte, 64)
		for ctx.Err() == nil {
			start := time.Now()
			_, err := opened.Write(b)
			if err == nil {
				_, err = io.ReadFull(opened, b)
			}
			if err != nil {
				done <- err
				return
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(start))))
			<-time.After(time.Millisecond)
		}
		done <- opened.Close()
	}()
	return func() {
		t.Helper()
		for range 2 {
			assert.NoError(t, eventually(t, done, "the live stream"))
		}
		assert.Less(t, time.Duration(slowest.Load()), 10*time.Second, "the live stream stood still")
	}
}
