package tunnel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

// rawFrame is one control frame as a hostile peer may write it.
func rawFrame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// rawAgent speaks the protocol by hand up to the welcome.
func rawAgent(t testing.TB, mux transport.Mux, instance string) transport.Stream {
	t.Helper()
	control, err := mux.OpenStream(t.Context())
	require.NoError(t, err)
	_, err = control.Write(rawFrame(fmt.Sprintf(`{"type":"hello","hello":{"instance":%q}}`, instance)))
	require.NoError(t, err)
	var prefix [4]byte
	_, err = io.ReadFull(control, prefix[:])
	require.NoError(t, err)
	body := make([]byte, binary.BigEndian.Uint32(prefix[:]))
	_, err = io.ReadFull(control, body)
	require.NoError(t, err)
	var welcome struct {
		Type    string
		Welcome struct{ Gateway string }
	}
	require.NoError(t, json.Unmarshal(body, &welcome))
	require.Equal(t, "welcome", welcome.Type)
	require.NotEmpty(t, welcome.Welcome.Gateway)
	return control
}

// logCounter counts the lines of warnings and errors.
type logCounter struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logCounter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logCounter) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

func (l *logCounter) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func TestAHostileAgentLosesItsConnectionAndIsLoggedOnce(t *testing.T) {
	tooLarge := binary.BigEndian.AppendUint32(nil, 64<<10+1)
	for name, attack := range map[string]func(t *testing.T, mux transport.Mux){
		"says nothing": func(t *testing.T, mux transport.Mux) {},
		"opens and says nothing": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, _ = s.Write([]byte{0})
		},
		"sends garbage": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, _ = s.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		},
		"announces too much": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, _ = s.Write(tooLarge)
		},
		"starts with a ping": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, _ = s.Write(rawFrame(`{"type":"ping","ping":{"seq":1}}`))
		},
		"forges log lines": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, _ = s.Write(rawFrame(`{"type":"hello","hello":{"instance":"x\nlevel=error msg=forged"}}`))
		},
		"resets its control stream at once": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.Reset(transport.Internal))
		},
		"ends its control stream": func(t *testing.T, mux transport.Mux) {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs logCounter
				f := start(t, &tunnel.Gateway{Logger: logs.logger()}, nil)
				require.NoError(t, f.agent.Handle(echoService, echo))
				witness, err := f.session(t).Open(t.Context(), echoTarget())
				require.NoError(t, err)
				defer witness.Close()

				mux, err := (&mem.Dialer{Listener: f.listener, Name: "mallory"}).Dial(t.Context(), "")
				require.NoError(t, err)
				began := time.Now()
				attack(t, mux)
				<-mux.Context().Done()
				require.LessOrEqual(t, time.Since(began), 5*time.Second)
				require.NotErrorIs(t, context.Cause(mux.Context()), transport.NoError)
				synctest.Wait()
				require.Len(t, logs.lines(), 1)
				require.EqualValues(t, 1, f.gateway.Stats().Refused)
				requireEcho(t, witness)
			})
		})
	}
}

func TestAHostileAgentAfterTheHandshakeLosesItsConnection(t *testing.T) {
	for name, attack := range map[string]string{
		"a second hello":  string(rawFrame(`{"type":"hello","hello":{"instance":"again"}}`)),
		"garbage":         "\xff\xff\xff\xff",
		"a frame of null": string(rawFrame(`null`)),
		"not an object":   string(rawFrame(`[1,2]`)),
		"bad body":        string(rawFrame(`{"type":"ping","ping":{"seq":-1}}`)),
		"no body":         string(rawFrame(`{"type":"pong"}`)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, nil, nil)
				require.NoError(t, f.agent.Handle(echoService, echo))
				witness, err := f.session(t).Open(t.Context(), echoTarget())
				require.NoError(t, err)
				defer witness.Close()
				mux, err := (&mem.Dialer{Listener: f.listener, Name: "mallory"}).Dial(t.Context(), "")
				require.NoError(t, err)
				control := rawAgent(t, mux, "i")
				_, err = control.Write([]byte(attack))
				require.NoError(t, err)
				<-mux.Context().Done()
				require.ErrorIs(t, context.Cause(mux.Context()), transport.Protocol)
				requireEcho(t, witness)
			})
		})
	}
}

func TestUnknownFramesAndFieldsAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		mux, err := (&mem.Dialer{Listener: f.listener, Name: "newer"}).Dial(t.Context(), "")
		require.NoError(t, err)
		control := rawAgent(t, mux, "i")
		_, err = control.Write(rawFrame(`{"type":"teleport","teleport":{"to":"mars"}}`))
		require.NoError(t, err)
		_, err = control.Write(rawFrame(`{"type":"ping","ping":{"seq":7,"mood":"good"},"extra":[]}`))
		require.NoError(t, err)
		want := rawFrame(`{"type":"pong","pong":{"seq":7}}`)
		got := make([]byte, len(want))
		_, err = io.ReadFull(control, got)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
		require.NoError(t, mux.CloseWithError(transport.NoError, ""))
	})
}

func TestABadHeaderEndsItsStreamOnly(t *testing.T) {
	for name, header := range map[string]string{
		"garbage":         "GET / HTTP/1.1\r\n\r\n",
		"too large":       "\x00\x00\x40\x01",
		"no service":      string(rawFrame(`{}`)),
		"control char":    string(rawFrame(`{"service":"tcp","address":"a:1","subject":"x\ny"}`)),
		"hop 2":           string(rawFrame(`{"service":"tcp","address":"a:1","hop":2}`)),
		"ends in between": "\x00\x00\x00\x09{",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs logCounter
				f := start(t, &tunnel.Gateway{Logger: logs.logger()}, nil)
				require.NoError(t, f.agent.Handle(echoService, echo))
				f.session(t)
				mux, err := (&mem.Dialer{Listener: f.listener, Name: "mallory"}).Dial(t.Context(), "")
				require.NoError(t, err)
				rawAgent(t, mux, "i")
				s, err := mux.OpenStream(t.Context())
				require.NoError(t, err)
				_, err = s.Write([]byte(header))
				require.NoError(t, err)
				_ = s.CloseWrite() // fails when the reset was faster
				_, err = s.Read(make([]byte, 1))
				require.ErrorIs(t, err, transport.Protocol)
				require.NoError(t, s.Close())
				require.NoError(t, mux.Context().Err(), "the connection lives")
				synctest.Wait()
				require.Len(t, logs.lines(), 1)

				ok, err := mux.OpenStream(t.Context()) // and works
				require.NoError(t, err)
				_, err = ok.Write(rawFrame(`{"service":"tcp","address":"db:1"}`))
				require.NoError(t, err)
				var prefix [4]byte
				_, err = io.ReadFull(ok, prefix[:])
				require.NoError(t, err)
				require.NoError(t, ok.Close())
				require.NoError(t, mux.CloseWithError(transport.NoError, ""))
			})
		})
	}
}

func TestAHeaderThatNeverComesFreesItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		f.session(t)
		mux, err := (&mem.Dialer{Listener: f.listener, Name: "mallory"}).Dial(t.Context(), "")
		require.NoError(t, err)
		rawAgent(t, mux, "i")
		var streams []transport.Stream
		for range 100 {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, err = s.Write([]byte{0})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		synctest.Wait()
		require.Equal(t, 100, f.gateway.Stats().Streams)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Zero(t, f.gateway.Stats().Streams)
		for _, s := range streams {
			_, err := s.Read(make([]byte, 1))
			require.ErrorIs(t, err, transport.Protocol)
			require.NoError(t, s.Close())
		}
		require.NoError(t, mux.CloseWithError(transport.NoError, ""))
	})
}

func TestAHostileGatewayGetsNothingButTheAgentsReconnect(t *testing.T) {
	for name, attack := range map[string]string{
		"garbage":            "HTTP/1.1 400 Bad Request\r\n\r\n",
		"a ping for welcome": string(rawFrame(`{"type":"ping","ping":{"seq":1}}`)),
		"a forged welcome":   string(rawFrame(`{"type":"welcome","welcome":{"gateway":"x\u0000y"}}`)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := &mem.Listener{}
				a := &tunnel.Agent{Gateways: []string{"https://g"}, Dialers: []transport.Dialer{&mem.Dialer{Listener: ln}}}
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- a.Run(ctx) }()
				for range 3 {
					mux, err := ln.Accept(t.Context())
					require.NoError(t, err)
					control, err := mux.AcceptStream(t.Context())
					require.NoError(t, err)
					_, err = control.Write([]byte(attack))
					require.NoError(t, err)
					<-mux.Context().Done()
					synctest.Wait()
					require.ErrorContains(t, a.Status().LastError, "handshake")
				}
				cancel()
				require.ErrorIs(t, <-ran, context.Canceled)
			})
		})
	}
}

func TestPayloadBeforeTheReplyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &mem.Listener{}
		a := &tunnel.Agent{
			Gateways: []string{"https://g"},
			Dialers:  []transport.Dialer{&mem.Dialer{Listener: ln}},
			Policy:   policy.InsecureAllowAll(),
			Resolver: fakeResolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}),
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		mux, err := ln.Accept(t.Context())
		require.NoError(t, err)
		control, err := mux.AcceptStream(t.Context())
		require.NoError(t, err)
		_, err = control.Write(rawFrame(`{"type":"welcome","welcome":{"gateway":"g"}}`))
		require.NoError(t, err)
		s, err := mux.OpenStream(t.Context())
		require.NoError(t, err)
		began := time.Now()
		_, err = s.Write(append(rawFrame(`{"service":"tcp","address":"slow.internal:1"}`), "impatient"...))
		require.NoError(t, err)
		var prefix [4]byte
		_, err = io.ReadFull(s, prefix[:])
		require.NoError(t, err)
		body := make([]byte, binary.BigEndian.Uint32(prefix[:]))
		_, err = io.ReadFull(s, body)
		require.NoError(t, err)
		var reply struct {
			OK   bool
			Code transport.Code
		}
		require.NoError(t, json.Unmarshal(body, &reply))
		require.False(t, reply.OK)
		require.Equal(t, transport.Protocol, reply.Code)
		require.Zero(t, time.Since(began))
		require.NoError(t, s.Close())
		cancel()
		require.ErrorIs(t, <-ran, context.Canceled)
	})
}
