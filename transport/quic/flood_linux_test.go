package quic_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// These tests send from many addresses of 127.0.0.0/8, which Linux has all of.

// socketAt is a socket with the given source address.
func socketAt(t *testing.T, ip string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dialerAt dials from the given source address.
func dialerAt(t *testing.T, ca *testca.CA, ip string) *quic.Dialer {
	return &quic.Dialer{
		TLSClientConfig: ca.Agent("agent-at"),
		ListenPacket:    func(context.Context, string, string) (net.PacketConn, error) { return socketAt(t, ip), nil },
	}
}

// answers is what a source got that does not go on with its handshake.
type answers struct{ retries, others, bytes int }

// collect reads what comes back until it is quiet.
func collect(c *net.UDPConn) (got answers) {
	b := make([]byte, 2048)
	for {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return got
		}
		got.bytes += n
		if isRetry(b[0]) {
			got.retries++
		} else {
			got.others++
		}
	}
}

// A forged source cannot answer. What it is sent must not be worth forging, and
// no more than RetryAbove of such handshakes may cost more than a Retry.
func TestAFloodFromForgedSourcesGetsRetriesOnly(t *testing.T) {
	t.Parallel() // it waits most of the time
	const (
		sources    = 200
		retryAbove = 16
	)
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{RetryAbove: retryAbove})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})

	began := time.Now()
	var (
		reading sync.WaitGroup
		mu      sync.Mutex
		got     []answers
		size    int
	)
	for i := range sources {
		from := socketAt(t, fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250))
		initial := captureInitial(t, ca)
		size = len(initial)
		_, err := from.WriteTo(initial, l.Addr())
		require.NoError(t, err)
		reading.Go(func() {
			a := collect(from)
			mu.Lock()
			got = append(got, a)
			mu.Unlock()
		})
	}
	requireServing(t, ca, l, agent, gateway)
	reading.Wait()

	handshakes, retries := 0, 0
	for _, a := range got {
		assert.LessOrEqual(t, a.bytes, 3*size, "amplification is bounded (RFC 9000, section 8.1)")
		retries += a.retries
		if a.others > 0 {
			handshakes++
		}
		if a.retries > 0 {
			assert.Zero(t, a.others, "a Retry is all the answer")
			assert.Less(t, a.bytes, size/4, "and smaller than the question")
		}
	}
	assert.Positive(t, handshakes)
	// A silent one loses its place after 2.5 s, and then another gets it.
	rounds := 1 + int(time.Since(began)/(2500*time.Millisecond))
	assert.LessOrEqual(t, handshakes, rounds*retryAbove)
	assert.GreaterOrEqual(t, retries, sources/4)
}

func TestForgedPacketsDoNotLockTheirVictimOut(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{MaxHandshakesPerSource: 8})
	const victim = "127.2.0.1"
	retries := 0
	for range 16 {
		forged := socketAt(t, victim)
		_, err := forged.WriteTo(captureInitial(t, ca), l.Addr())
		require.NoError(t, err)
		b := make([]byte, 2048)
		require.NoError(t, forged.SetReadDeadline(time.Now().Add(patience)))
		_, _, err = forged.ReadFrom(b)
		require.NoError(t, err)
		if isRetry(b[0]) {
			retries++
		}
	}
	assert.GreaterOrEqual(t, retries, 12, "a quarter of the places is all that forgers get")
	connect(t, l, dialerAt(t, ca, victim))
}

func TestASourceHasNoMoreHandshakesThanItsShare(t *testing.T) {
	t.Parallel() // it waits most of the time
	const share = 4
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{MaxHandshakesPerSource: share, RetryAbove: -1})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})

	const greedy = "127.3.0.1"
	ctx, cancel := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	defer slow.Wait()
	defer cancel()
	for range share {
		// It proves its address and goes no further.
		halting := &haltingConn{PacketConn: socketAt(t, greedy)}
		d := dialerAt(t, ca, greedy)
		d.ListenPacket = func(context.Context, string, string) (net.PacketConn, error) { return halting, nil }
		slow.Go(func() { _, _ = d.Dial(ctx, urlOf(l.Addr())) })
		require.Eventually(t, halting.halted.Load, patience, time.Millisecond)
	}
	requireServing(t, ca, l, agent, gateway) // by now their last packets were looked at
	_, err := dialerAt(t, ca, greedy).Dial(soon(t), urlOf(l.Addr()))
	require.ErrorIs(t, err, transport.Overloaded)
	m, err := dialerAt(t, ca, "127.3.0.2").Dial(soon(t), urlOf(l.Addr()))
	require.NoError(t, err, "another source has its own share")
	require.NoError(t, m.CloseWithError(transport.NoError, ""))

	m, err = dialerAt(t, ca, greedy).Dial(soon(t), urlOf(l.Addr()))
	for err != nil { // until the slow ones have timed out
		require.ErrorIs(t, err, transport.Overloaded)
		require.NoError(t, soon(t).Err())
		m, err = dialerAt(t, ca, greedy).Dial(soon(t), urlOf(l.Addr()))
	}
	require.NoError(t, m.CloseWithError(transport.NoError, ""))
}

// flood sends the beginnings of handshakes that never go on, each from an address
// of its own, and whole handshakes of agents without a certificate, until ctx ends.
// The function that it returns waits for the end.
func flood(ctx context.Context, tb testing.TB, ca *testca.CA, l *quic.Listener) (wait func() (halves, refusals int64)) {
	tb.Helper()
	const perSecond = 500
	var (
		wg               sync.WaitGroup
		halves, refusals atomic.Int64
	)
	stranger := testca.New(tb).Agent("stranger")
	stranger.RootCAs = ca.Pool()
	wg.Go(func() {
		pace := time.NewTicker(time.Second / perSecond)
		defer pace.Stop()
		for i := 0; ; i++ {
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
			from, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 4, byte(i/250), byte(1+i%250))})
			if err != nil {
				continue // too many sockets: the flood is what it is
			}
			// What it is sent goes nowhere, as with a forged source.
			if _, err := from.WriteTo(captureInitial(tb, ca), l.Addr()); err == nil {
				halves.Add(1)
			}
			_ = from.Close()
		}
	})
	wg.Go(func() {
		d := &quic.Dialer{TLSClientConfig: stranger}
		for ctx.Err() == nil {
			if _, err := d.Dial(ctx, urlOf(l.Addr())); errors.Is(err, transport.Denied) {
				refusals.Add(1)
			}
		}
	})
	return func() (int64, int64) {
		wg.Wait()
		return halves.Load(), refusals.Load()
	}
}

func TestAFloodOfHandshakesLeavesLiveStreamsMoving(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	agent, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	goroutines, before := runtime.NumGoroutine(), heap()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	live := pulse(ctx, t, agent, gateway)
	halves, refusals := flood(ctx, t, ca, l)()
	t.Logf("%d half handshakes, %d refused ones", halves, refusals)
	assert.Positive(t, refusals)
	assert.Positive(t, halves)
	assert.LessOrEqual(t, heap()-before, int64(32<<20))
	live()
	requireServing(t, ca, l, agent, gateway)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() < goroutines+50 }, patience, 50*time.Millisecond,
		"the silent ones lose their places")
}

// BenchmarkLiveStreamDuringAFlood measures small exchanges on a stream while the
// listener is flooded from this process, which shares its processors.
func BenchmarkLiveStreamDuringAFlood(b *testing.B) {
	for _, flooded := range []bool{false, true} {
		b.Run(fmt.Sprintf("flooded=%v", flooded), func(b *testing.B) {
			ca := testca.New(b)
			l := listen(b, ca, quic.ListenConfig{})
			agent, gateway := connect(b, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
			opened, accepted := open(b, gateway, agent, "x")
			go func() {
				_, _ = io.Copy(struct{ io.Writer }{accepted}, struct{ io.Reader }{accepted})
				_ = accepted.Close()
			}()
			msg := make([]byte, 1)
			_, err := io.ReadFull(opened, msg)
			require.NoError(b, err)
			require.NoError(b, opened.SetDeadline(time.Time{}))
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			if flooded {
				wait := flood(ctx, b, ca, l)
				defer wait()
				defer cancel()
			}
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := opened.Write(msg); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(opened, msg); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}
