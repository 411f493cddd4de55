package websocket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// The flood, less under the race detector, which slows the attacker too: so many sockets that say nothing, and so many handshakes without a
// certificate in a second, for so long.
const (
	floodTarget    = "OUTGATE_TEST_FLOOD"
	floodSockets   = 10_000 / slowdown
	floodRate      = 500 / slowdown
	floodDuration  = 6 * time.Second
	floodSources   = 100
	floodSocketTTL = 6 * time.Second
)

// floodReport is what the attacker says of its success.
type floodReport struct {
	Sockets    int           // that were connected
	Longest    time.Duration // that one of them was not closed
	Handshakes int           // that were tried
	Welcome    int           // that came to an answer of HTTP
}

// flood attacks an address, whose certificate it reads, and prints a floodReport.
func flood(target string) {
	certificate, _ := io.ReadAll(os.Stdin)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificate) {
		panic("no certificate")
	}
	anybody := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	var report floodReport
	var mu sync.Mutex
	var all sync.WaitGroup
	stop := time.Now().Add(floodDuration)
	dialer := func(net24 string, i int) *net.Dialer {
		return &net.Dialer{
			Timeout:   floodSocketTTL,
			LocalAddr: &net.TCPAddr{IP: net.ParseIP(fmt.Sprintf("%s.%d", net24, 1+i%floodSources))},
		}
	}
	for worker := range 8 { // so many connect at a time
		all.Go(func() {
			for i := worker; i < floodSockets && time.Now().Before(stop); i += 8 {
				conn, err := dialer("127.3.0", i).Dial("tcp", target)
				if err != nil {
					continue
				}
				start := time.Now()
				all.Go(func() {
					_ = conn.SetReadDeadline(start.Add(3 * floodSocketTTL))
					_, _ = conn.Read(make([]byte, 1))
					mu.Lock()
					defer mu.Unlock()
					report.Sockets++
					report.Longest = max(report.Longest, time.Since(start))
					_ = conn.Close()
				})
			}
		})
	}
	tick := time.NewTicker(time.Second / floodRate)
	defer tick.Stop()
	limit := make(chan struct{}, 64)
	for i := 0; time.Now().Before(stop); i++ {
		<-tick.C
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			conn, err := tls.DialWithDialer(dialer("127.4.0", i), "tcp", target, anybody)
			welcome := false
			if err == nil {
				_ = conn.SetDeadline(time.Now().Add(floodSocketTTL))
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				n, _ := conn.Read(make([]byte, 1))
				welcome = n > 0
				_ = conn.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			report.Handshakes++
			if welcome {
				report.Welcome++
			}
		})
	}
	all.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(report)
}

// underFlood runs tunnels through a flood. It returns how long 64 bytes took there
// and back, before and during it, and the most goroutines and bytes of heap and
// stacks that came on top.
func underFlood(tb testing.TB) (calm, flooded []time.Duration, goroutines, memory int, report floodReport) {
	tb.Helper()
	ca := testca.New(tb)
	served := ca.Gateway()
	l := listen(tb, served, websocket.Config{})
	var streams []transport.Stream
	for range 8 {
		agent, gateway := connect(tb, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")})
		opened, accepted := open(tb, gateway, agent)
		go func() { _, _ = io.Copy(accepted, accepted) }()
		streams = append(streams, opened)
	}
	calm = pingPong(tb, streams, nil)

	before, memoryBefore := usage()
	attacker := exec.CommandContext(tb.Context(), os.Args[0])
	attacker.Env = append(os.Environ(), floodTarget+"="+l.Addr().String())
	attacker.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: served.Certificates[0].Certificate[0]}))
	var said, complained bytes.Buffer
	attacker.Stdout, attacker.Stderr = &said, &complained
	require.NoError(tb, attacker.Start())
	ended := make(chan error, 1)
	over := make(chan struct{})
	go func() { ended <- attacker.Wait(); close(over) }()
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			g, m := usage()
			goroutines, memory = max(goroutines, g-before), max(memory, m-memoryBefore)
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	var newcomers atomic.Int32
	watch.Go(func() { // an honest agent that comes in the middle of it
		for {
			d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-2")}
			ctx, cancel := context.WithTimeout(tb.Context(), patience)
			if m, err := d.Dial(ctx, urlOf(l.Addr())); err == nil {
				newcomers.Add(1)
				_ = m.CloseWithError(transport.NoError, "")
			}
			cancel()
			select {
			case <-over:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	flooded = pingPong(tb, streams, over)
	require.NoError(tb, <-ended, complained.String())
	watch.Wait()
	require.NoError(tb, json.Unmarshal(said.Bytes(), &report), "%s%s", said.String(), complained.String())
	require.Positive(tb, newcomers.Load(), "no agent could connect during the flood")
	return calm, flooded, goroutines, memory, report
}

// pingPong sends over every stream, 20 times and until over is closed. It returns
// all times, sorted.
func pingPong(tb testing.TB, streams []transport.Stream, over <-chan struct{}) []time.Duration {
	tb.Helper()
	var mu sync.Mutex
	var times []time.Duration
	var all sync.WaitGroup
	for _, s := range streams {
		require.NoError(tb, s.SetDeadline(time.Now().Add(5*time.Minute)))
		all.Go(func() {
			buf := make([]byte, 64)
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				if over == nil && i == 20 {
					return
				}
				start := time.Now()
				_, err := s.Write(buf)
				if err == nil {
					_, err = io.ReadFull(s, buf)
				}
				if err != nil {
					tb.Errorf("a live stream: %v", err)
					return
				}
				mu.Lock()
				times = append(times, time.Since(start))
				mu.Unlock()
				<-time.After(10 * time.Millisecond)
			}
		})
	}
	all.Wait()
	slices.Sort(times)
	return times
}

// usage does not stop the world, as runtime.ReadMemStats does.
func usage() (goroutines, memory int) {
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(m)
	return runtime.NumGoroutine(), int(m[0].Value.Uint64() + m[1].Value.Uint64())
}

func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)-1)*p/100]
}

func TestAFloodOfHandshakesLeavesTunnelsAlone(t *testing.T) {
	calm, flooded, goroutines, memory, report := underFlood(t)
	t.Logf("%d sockets, the longest open for %v; %d handshakes", report.Sockets, report.Longest, report.Handshakes)
	t.Logf("p99 %v before, %v in the flood; %d goroutines, %d KiB more", percentile(calm, 99), percentile(flooded, 99), goroutines, memory>>10)
	require.Positive(t, report.Sockets)
	require.Positive(t, report.Handshakes)
	require.Zero(t, report.Welcome, "without a certificate nobody is answered")
	require.LessOrEqual(t, report.Longest, 3*floodSocketTTL-time.Second, "silent sockets are closed")
	require.LessOrEqual(t, goroutines, 4*1024)
	require.LessOrEqual(t, memory, 100<<20)
	require.Less(t, percentile(flooded, 99), 5*time.Second, "streams move")
}

// BenchmarkHandshakeFlood measures what TestAFloodOfHandshakesLeavesTunnelsAlone
// bounds.
func BenchmarkHandshakeFlood(b *testing.B) {
	for b.Loop() {
		calm, flooded, goroutines, memory, report := underFlood(b)
		b.ReportMetric(float64(percentile(calm, 99).Microseconds())/1000, "calm-p99-ms")
		b.ReportMetric(float64(percentile(flooded, 99).Microseconds())/1000, "flood-p99-ms")
		b.ReportMetric(report.Longest.Seconds(), "silent-s")
		b.ReportMetric(float64(report.Sockets), "sockets")
		b.ReportMetric(float64(report.Handshakes)/floodDuration.Seconds(), "handshakes/s")
		b.ReportMetric(float64(goroutines), "goroutines")
		b.ReportMetric(float64(memory>>10), "KiB")
	}
}
