package tunnel_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

// carriers are the transports that the benchmarks compare.
var carriers = map[string]func(testing.TB) (transport.Listener, transport.Dialer, string){
	"mem": func(testing.TB) (transport.Listener, transport.Dialer, string) {
		ln := &mem.Listener{}
		return ln, &mem.Dialer{Listener: ln, Name: "agent-1"}, "https://mem"
	},
	"websocket": func(tb testing.TB) (transport.Listener, transport.Dialer, string) {
		ca := testca.New(tb)
		ln, err := websocket.Listen("127.0.0.1:0", ca.Gateway(), websocket.Config{})
		require.NoError(tb, err)
		return ln, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}, "https://" + ln.Addr().String()
	},
	"quic": func(tb testing.TB) (transport.Listener, transport.Dialer, string) {
		ca := testca.New(tb)
		ln, err := quic.Listen("127.0.0.1:0", ca.Gateway(), quic.ListenConfig{})
		require.NoError(tb, err)
		return ln, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}, "https://" + ln.Addr().String()
	},
}

// connect is a gateway with one agent over a carrier.
func connect(tb testing.TB, carrier string) (*tunnel.Gateway, *tunnel.Agent) {
	tb.Helper()
	return connectUnder(tb, carrier, policy.InsecureAllowAll())
}

func connectUnder(tb testing.TB, carrier string, p policy.Policy) (*tunnel.Gateway, *tunnel.Agent) {
	tb.Helper()
	ln, dialer, url := carriers[carrier](tb)
	g := &tunnel.Gateway{}
	a := &tunnel.Agent{Gateways: []string{url}, Dialers: []transport.Dialer{dialer}, Policy: p, MaxOpensPerSecond: -1}
	served, ran := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- g.Serve(ctx, ln) }()
	go func() { ran <- a.Run(ctx) }()
	tb.Cleanup(func() {
		_ = g.Close()
		cancel()
		<-served
		<-ran
		if c, ok := dialer.(io.Closer); ok {
			_ = c.Close()
		}
	})
	_, err := g.WaitSession(tb.Context(), "agent-1")
	require.NoError(tb, err)
	return g, a
}

// direct is no tunnel: mutual TLS to the target itself, for comparison in one run.
const direct = "direct"

// eachWay runs a benchmark over direct TLS and over every carrier.
func eachWay(b *testing.B, f func(b *testing.B, way string)) {
	for _, way := range []string{direct, "mem", "websocket", "quic"} {
		b.Run(way, func(b *testing.B) { f(b, way) })
	}
}

// dialer returns how to dial one way, and what listens for targets at its end.
func dialer(b *testing.B, way string) (tunnel.DialFunc, net.Listener) {
	if way != direct {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		g, _ := connect(b, way)
		return g.Dialer("agent-1", "bench"), ln
	}
	ca := testca.New(b)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", ca.Gateway())
	require.NoError(b, err)
	d := &tls.Dialer{Config: ca.Agent("agent-1")}
	return d.DialContext, ln
}

// serveEcho sends back what arrives on any connection.
func serveEcho(b *testing.B, ln net.Listener) (address string) {
	b.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

// BenchmarkOpen opens a stream to a target, acknowledged, and closes it: header,
// policy, dial, reply, one byte there and back.
func BenchmarkOpen(b *testing.B) {
	eachWay(b, func(b *testing.B, way string) {
		dial, ln := dialer(b, way)
		target := serveEcho(b, ln)
		b.ReportAllocs()
		for b.Loop() {
			openOnce(b, dial, target)
		}
	})
}

// BenchmarkOpenParallel has 64 callers open streams at once.
func BenchmarkOpenParallel(b *testing.B) {
	eachWay(b, func(b *testing.B, way string) {
		dial, ln := dialer(b, way)
		target := serveEcho(b, ln)
		b.SetParallelism(64 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				openOnce(b, dial, target)
			}
		})
	})
}

func openOnce(b *testing.B, dial tunnel.DialFunc, target string) {
	c, err := dial(context.Background(), "tcp", target)
	if err != nil {
		b.Error(err)
		return
	}
	var one [1]byte
	if _, err := c.Write(one[:]); err != nil {
		b.Error(err)
	}
	if _, err := io.ReadFull(c, one[:]); err != nil {
		b.Error(err)
	}
	_ = c.Close()
}

// BenchmarkBulk sends through the tunnel into a TCP target (up) and out of it (down).
func BenchmarkBulk(b *testing.B) {
	eachWay(b, func(b *testing.B, way string) {
		for _, streams := range []int{1, 64} {
			for _, direction := range []string{"up", "down"} {
				b.Run(fmt.Sprintf("%s/streams=%d", direction, streams), func(b *testing.B) {
					bulk(b, way, streams, direction == "up")
				})
			}
		}
	})
}

const chunk = 64 << 10

func bulk(b *testing.B, way string, streams int, up bool) {
	dial, ln := dialer(b, way)
	defer ln.Close()
	conns := make(chan net.Conn, streams)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if c, ok := c.(*tls.Conn); ok { // else the first Read does it, while Dial waits
				_ = c.HandshakeContext(b.Context())
			}
			conns <- c
		}
	}()
	type pair struct{ src, dst net.Conn }
	pairs := make([]pair, streams)
	for i := range pairs {
		c, err := dial(b.Context(), "tcp", ln.Addr().String())
		require.NoError(b, err)
		far := <-conns
		defer c.Close()
		defer far.Close()
		pairs[i] = pair{c, far}
		if !up {
			pairs[i] = pair{far, c}
		}
	}
	b.SetBytes(chunk)
	b.ReportAllocs()
	b.ResetTimer()
	per := (b.N + streams - 1) / streams
	done := make(chan error, 2*streams)
	for _, p := range pairs {
		go func() {
			buf := make([]byte, chunk)
			for range per {
				if _, err := p.src.Write(buf); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		go func() {
			_, err := io.CopyN(io.Discard, struct{ io.Reader }{p.dst}, int64(per)*chunk)
			done <- err
		}()
	}
	for range 2 * streams {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleSession reports the heap and stacks of one idle session, both sides
// together, in this process.
func BenchmarkIdleSession(b *testing.B) {
	for carrier := range carriers {
		b.Run(carrier, func(b *testing.B) { idleSession(b, carrier) })
	}
}

func idleSession(b *testing.B, carrier string) {
	const sessions = 200
	for b.Loop() {
		b.StopTimer()
		before := inUse()
		goroutines := runtime.NumGoroutine()
		b.StartTimer()
		stop := idleSessions(b, carrier, sessions)
		b.StopTimer()
		b.ReportMetric(float64(inUse()-before)/sessions/1024, "KiB/session")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/sessions, "goroutines/session")
		stop()
		b.StartTimer()
	}
}

func idleSessions(b *testing.B, carrier string, n int) (stop func()) {
	ln, dialer, url := carriers[carrier](b)
	// One identity for all would replace its own sessions.
	next := make(chan string, n)
	for i := range n {
		next <- fmt.Sprintf("agent-%d", i)
	}
	g := &tunnel.Gateway{Identify: func(tls.ConnectionState) (string, error) { return <-next, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	served, ran := make(chan error, 1), make(chan error, n)
	go func() { served <- g.Serve(ctx, ln) }()
	for range n {
		a := &tunnel.Agent{Gateways: []string{url}, Dialers: []transport.Dialer{dialer}}
		go func() { ran <- a.Run(ctx) }()
	}
	for i := range n {
		_, err := g.WaitSession(b.Context(), fmt.Sprintf("agent-%d", i))
		require.NoError(b, err)
	}
	return func() {
		cancel()
		for range n {
			<-ran
		}
		_ = g.Close()
		<-served
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
