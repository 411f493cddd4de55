package websocket_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// attacks are what a peer may send after the handshake, given the number of the
// next stream it may open and of the next stream that the other side will open.
var attacks = map[string]func(first, ours uint32) []byte{
	"another version":    func(first, _ uint32) []byte { return []byte{1, syn, 0, 0, byte(first), 0, 0, 0} },
	"text":               func(_, _ uint32) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") },
	"zeros":              func(_, _ uint32) []byte { return make([]byte, 1000) },
	"an unknown command": func(first, _ uint32) []byte { return frame(9, first, nil) },
	"CLOSE of a stream":  func(first, _ uint32) []byte { return join(frame(syn, first, nil), frame(5, first, make([]byte, 4))) },
	"CLOSE without TLS":  func(_, _ uint32) []byte { return frame(5, 0, []byte("\x0d\x00\x00\x00revoked")) },
	"half a CLOSE":       func(_, _ uint32) []byte { return frame(5, 0, make([]byte, 3)) },
	"a CLOSE too long":   func(_, _ uint32) []byte { return frame(5, 0, make([]byte, 125)) },
	"SYN with a payload": func(first, _ uint32) []byte { return frame(syn, first, []byte("x")) },
	"SYN out of order":   func(first, _ uint32) []byte { return frame(syn, first+2, nil) },
	"SYN twice":          func(first, _ uint32) []byte { return join(frame(syn, first, nil), frame(syn, first, nil)) },
	"SYN of a forgotten stream": func(first, _ uint32) []byte {
		return join(frame(syn, first, nil), frame(fin, first, nil), frame(syn, first, nil))
	},
	"SYN with our parity":       func(_, ours uint32) []byte { return frame(syn, ours, nil) },
	"SYN of stream 0":           func(_, _ uint32) []byte { return frame(syn, 0, nil) },
	"SYN of stream 1":           func(_, _ uint32) []byte { return frame(syn, 1, nil) },
	"FIN with a payload":        func(first, _ uint32) []byte { return frame(fin, first, []byte("x")) },
	"FIN of no stream":          func(first, _ uint32) []byte { return frame(fin, first, nil) },
	"FIN of a stream of ours":   func(_, ours uint32) []byte { return frame(fin, ours, nil) },
	"FIN of stream 0":           func(_, _ uint32) []byte { return frame(fin, 0, nil) },
	"data for no stream":        func(first, _ uint32) []byte { return frame(psh, first, []byte("x")) },
	"data for a stream of ours": func(_, ours uint32) []byte { return frame(psh, ours, []byte("x")) },
	"data of no bytes":          func(first, _ uint32) []byte { return join(frame(syn, first, nil), frame(psh, first, nil)) },
	"data larger than a frame": func(first, _ uint32) []byte {
		return join(frame(syn, first, nil), frame(psh, first, make([]byte, largestFrame+1)))
	},
	"NOP with a payload":        func(_, _ uint32) []byte { return frame(nop, 0, []byte("x")) },
	"NOP of a stream":           func(first, _ uint32) []byte { return join(frame(syn, first, nil), frame(nop, first, nil)) },
	"an update of no stream":    func(first, _ uint32) []byte { return update(first, 0, window) },
	"an update of stream 0":     func(_, _ uint32) []byte { return update(0, 0, window) },
	"a short update":            func(first, _ uint32) []byte { return join(frame(syn, first, nil), frame(upd, first, make([]byte, 7))) },
	"an update of what was not": func(first, _ uint32) []byte { return join(frame(syn, first, nil), update(first, 1, window)) },
	"an update that goes back": func(first, _ uint32) []byte {
		return join(frame(syn, first, nil), update(first, math.MaxUint32, window))
	},
	"an update without bounds":    func(first, _ uint32) []byte { return join(frame(syn, first, nil), update(first, 0, math.MaxUint32)) },
	"a short record":              func(_, _ uint32) []byte { return frame(psh, 0, make([]byte, 12)) },
	"a long record":               func(_, _ uint32) []byte { return frame(psh, 0, make([]byte, 14)) },
	"record 0":                    func(_, _ uint32) []byte { return record(0, 0, 0) },
	"an unknown record":           func(_, _ uint32) []byte { return record(5, 0, 0) },
	"a grant for one stream":      func(first, _ uint32) []byte { return record(grantRecord, first, 10) },
	"an end of stream 0":          func(_, _ uint32) []byte { return record(endRecord, 0, 0) },
	"an end of stream 1":          func(_, _ uint32) []byte { return record(endRecord, 1, 0) },
	"an end of no stream":         func(first, _ uint32) []byte { return record(endRecord, first, 0) },
	"a reset of no stream":        func(first, _ uint32) []byte { return record(resetRecord, first, 0) },
	"a reset of a stream of ours": func(_, ours uint32) []byte { return record(resetRecord, ours, 0) },
	"a code beyond 32 bits":       func(first, _ uint32) []byte { return join(frame(syn, first, nil), record(resetRecord, first, 1<<32)) },
	"a stop of no stream":         func(_, _ uint32) []byte { return record(stopRecord, 9999, 0) },
	"more than the window": func(first, _ uint32) []byte {
		data := bytes.Repeat(frame(psh, first, make([]byte, largestFrame)), window/largestFrame)
		return join(frame(syn, first, nil), data)
	},
	"more than the window in single bytes": func(first, _ uint32) []byte {
		data := bytes.Repeat(frame(psh, first, []byte("x")), window/(frameOverhead+1)+1)
		return join(frame(syn, first, nil), data)
	},
	"more streams than allowed": func(first, _ uint32) (all []byte) {
		for i := range uint32(17) {
			all = append(all, frame(syn, first+2*i, nil)...)
		}
		return all
	},
}

func TestAPeerThatBreaksTheProtocolLosesItsConnection(t *testing.T) {
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			bothWays(t, websocket.Config{MaxStreams: 16}, func(t *testing.T, attacker raw, m transport.Mux, first, ours uint32) {
				end := attacker.drain()
				for b := attack(first, ours); len(b) > 0; b = b[min(len(b), 100_000):] {
					attacker.send(b[:min(len(b), 100_000)])
				}
				cause := causeOf(t, m)
				require.Equal(t, transport.Protocol, cause.Code, cause.Reason)
				require.False(t, cause.Remote)
				require.NotEmpty(t, cause.Reason)
				require.Equal(t, ws.StatusCode(4000+transport.Protocol), ws.CloseStatus(eventually(t, end, "the close frame")))
			})
		})
	}
}

// What is just inside the limits must not be an attack, or the test above would
// prove nothing about them.
func TestAPeerThatUsesItsLimitsToTheLastByteKeepsItsConnection(t *testing.T) {
	bothWays(t, websocket.Config{MaxStreams: 16}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
		for i := range uint32(16) {
			attacker.send(frame(syn, first+2*i, nil))
		}
		full := bytes.Repeat(frame(psh, first, make([]byte, largestFrame)), window/largestFrame-1)
		rest := window - (window/largestFrame-1)*(largestFrame+frameOverhead) - frameOverhead
		attacker.send(full[:100_000])
		attacker.send(full[100_000:200_000])
		attacker.send(full[200_000:], frame(psh, first, make([]byte, rest)))
		attacker.send(bytes.Repeat(frame(psh, first+2, []byte("x")), window/(frameOverhead+1)), frame(nop, 0, nil))
		attacker.send(record(endRecord, first, uint64(window-window/largestFrame*frameOverhead)), frame(fin, first, nil))
		attacker.send(record(endRecord, first+2, window/(frameOverhead+1)), frame(fin, first+2, nil), frame(fin, first+2, nil))
		for _, want := range []int{window - window/largestFrame*frameOverhead, window / (frameOverhead + 1)} {
			got, err := io.ReadAll(accepted(t, m))
			require.NoError(t, err)
			require.Len(t, got, want)
		}
		require.NoError(t, m.Context().Err())
	})
}

func TestWordsTooLateAboutAStreamAreIgnored(t *testing.T) {
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
		attacker.drain()
		attacker.send(frame(syn, first, nil))
		require.NoError(t, accepted(t, m).Close())
		attacker.send(bytes.Repeat(frame(psh, first, make([]byte, 1000)), 100)) // in flight when the close arrives
		attacker.send(update(first, 0, window), record(resetRecord, first, 1), record(stopRecord, first, 1),
			record(endRecord, first, 100_000), frame(fin, first, nil))
		attacker.send(frame(syn, first+2, nil), frame(psh, first+2, []byte("still here")), record(endRecord, first+2, 10))
		got, err := io.ReadAll(accepted(t, m))
		require.NoError(t, err)
		require.Equal(t, "still here", string(got))
	})
}

func TestAMessageThatIsNotBinaryOrTooLargeBreaksTheProtocol(t *testing.T) {
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, _, _ uint32) {
		require.NoError(t, attacker.ws.Write(soon(t), ws.MessageText, record(grantRecord, 0, 1)))
		require.Equal(t, transport.Protocol, causeOf(t, m).Code)
	})
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
		attacker.drain()
		attacker.send(frame(syn, first, nil))
		attacker.send(bytes.Repeat(record(grantRecord, 0, 1), 128<<10/21+1))
		require.Equal(t, transport.Protocol, causeOf(t, m).Code)
	})
}

func TestFramesMayBeSplitOverMessagesAnywhere(t *testing.T) {
	bothWays(t, websocket.Config{}, func(t *testing.T, attacker raw, m transport.Mux, first, _ uint32) {
		for _, b := range join(frame(syn, first, nil), frame(psh, first, []byte("hello")), frame(nop, 0, nil), record(endRecord, first, 5)) {
			attacker.send(nil, []byte{b})
		}
		got, err := io.ReadAll(accepted(t, m))
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
	})
}

func TestAConnectionMustStartWithItsGrant(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		send []byte
		want transport.Code
	}{
		"nothing":  {nil, transport.Timeout},
		"half":     {record(grantRecord, 0, 1)[:20], transport.Timeout},
		"a stream": {frame(syn, 3, nil), transport.Protocol},
		"an end":   {record(endRecord, 3, 0), transport.Protocol},
		"garbage":  {[]byte("garbage garbage"), transport.Protocol},
	} {
		t.Run(name, func(t *testing.T) {
			ca := testca.New(t)
			cfg := websocket.Config{}
			if c.want == transport.Timeout {
				cfg.HandshakeTimeout = 2 * time.Second
			}
			l := listen(t, ca.Gateway(), cfg)
			attacker := rawAgent(t, ca, l)
			end := attacker.drain()
			if c.send != nil {
				attacker.send(c.send)
			}
			require.Equal(t, ws.StatusCode(4000+c.want), ws.CloseStatus(eventually(t, end, "the close frame")))
			if c.want == transport.Protocol { // the next that Accept returns is another
				connect(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")})
			}
		})
	}
	t.Run("a gateway that does not", func(t *testing.T) {
		ca := testca.New(t)
		s := serve(t, ca.Gateway(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := upgrade(w, r, websocket.Subprotocol)
			if err == nil {
				raw{t, c, nil}.drain()
			}
		}))
		_, err := (&websocket.Dialer{
			TLSClientConfig: ca.Agent("agent-1"),
			Config:          websocket.Config{HandshakeTimeout: 300 * time.Millisecond},
		}).Dial(t.Context(), s.URL)
		require.ErrorIs(t, err, transport.Timeout)
	})
}

func TestGarbageBelowTheFramesEndsTheConnection(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	for name, garbage := range map[string]string{
		"an unmasked frame":          "\x82\x05hello",
		"a reserved opcode":          "\x83\x80\x00\x00\x00\x00",
		"reserved bits":              "\xf2\x80\x00\x00\x00\x00",
		"a fragmented ping":          "\x09\x80\x00\x00\x00\x00",
		"a long ping":                "\x89\xfe\x01\x00\x00\x00\x00\x00" + strings.Repeat("x", 256),
		"a continuation of nothing":  "\x80\x80\x00\x00\x00\x00",
		"a length of 2⁶⁴-1":          "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
		"a close with one byte":      "\x88\x81\x00\x00\x00\x00\x0f",
		"a close with status 1006":   "\x88\x82\x00\x00\x00\x00\x03\xee",
		"a message inside a message": "\x02\x81\x00\x00\x00\x00\x02\x82\x81\x00\x00\x00\x00\x02",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a goodbye that does not come
			l := listen(t, ca.Gateway(), websocket.Config{})
			conn, err := (&tls.Dialer{Config: ca.Agent("hostile")}).DialContext(soon(t), "tcp", l.Addr().String())
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(conn, "GET "+websocket.Path+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
				"Sec-WebSocket-Protocol: "+websocket.Subprotocol+"\r\n\r\n"+
				"\x82\x95\x00\x00\x00\x00"+string(record(grantRecord, 0, 1)))
			require.NoError(t, err)
			m, err := l.Accept(soon(t))
			require.NoError(t, err)
			_, err = io.WriteString(conn, garbage)
			require.NoError(t, err)
			require.Equal(t, transport.Protocol, causeOf(t, m).Code)
			_, err = io.ReadAll(conn)
			require.NoError(t, err, "the server closes the socket")
			require.NoError(t, m.CloseWithError(transport.NoError, ""))
		})
	}
}

func TestAHostilePeerHurtsNobodyElse(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{MaxStreams: 16})
	agent, gateway := connect(t, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	opened, accepted := open(t, agent, gateway)
	go func() { _, _ = io.Copy(accepted, accepted) }()
	for name, attack := range attacks {
		attacker := rawAgent(t, ca, l)
		attacker.send(record(grantRecord, 0, 100))
		m, err := l.Accept(soon(t))
		require.NoError(t, err)
		attacker.send(attack(3, 2))
		_, err = opened.Write([]byte("x"))
		require.NoError(t, err, name)
		_, err = io.ReadFull(opened, make([]byte, 1))
		require.NoError(t, err, name)
		_ = attacker.ws.CloseNow()
		require.NoError(t, m.CloseWithError(transport.NoError, ""))
	}
}
