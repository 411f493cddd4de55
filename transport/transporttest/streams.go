package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

// oneWay is a connection seen from the side that opens streams.
type oneWay struct {
	name             string
	opener, acceptor transport.Mux
	cut              func()
	byDialed         bool // whose streams the dialed side opens
}

func openedByDialed(p Pair) oneWay {
	return oneWay{"opened by the dialed side", p.Dialed, p.Accepted, p.Cut, true}
}

func openedByAccepted(p Pair) oneWay {
	return oneWay{"opened by the accepted side", p.Accepted, p.Dialed, p.Cut, false}
}

// eachWay runs f on two new connections at once: one whose streams the dialed side
// opens, one whose streams the accepted side opens. What ends one f, as t.Fatal does,
// lets the other finish and then ends the caller.
func (t *trial) eachWay(f func(c oneWay)) {
	ways := t.ways()
	var running sync.WaitGroup
	var finished atomic.Int32
	for _, c := range ways {
		running.Go(func() {
			f(c)
			finished.Add(1)
		})
	}
	running.Wait()
	if int(finished.Load()) < len(ways) {
		runtime.Goexit()
	}
}

// ways are two new connections, seen as eachWay says.
func (t *trial) ways() []oneWay {
	return []oneWay{openedByDialed(t.connect()), openedByAccepted(t.connect())}
}

// soon bounds a call that should return at once.
func (t *trial) soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), t.patience)
}

// greeting is the first byte of a stream, without which the acceptor may not see
// it.
const greeting = 'g'

// open opens a stream and accepts it. The greeting is already read. Streams end
// with their connection, or in the test.
func (t *trial) open(c oneWay) (opened, accepted transport.Stream) {
	t.Helper()
	opened = t.openOnly(c.opener)
	return opened, t.acceptOnly(c.acceptor)
}

// openOnly opens a stream and writes the greeting.
func (t *trial) openOnly(m transport.Mux) transport.Stream {
	t.Helper()
	return t.waitStream(func() (transport.Stream, error) { return openGreeted(t, m) }, "OpenStream and the first Write")
}

// acceptOnly accepts a stream and reads the greeting.
func (t *trial) acceptOnly(m transport.Mux) transport.Stream {
	t.Helper()
	return t.waitStream(func() (transport.Stream, error) { return acceptGreeted(t, m) }, "AcceptStream and the first Read")
}

func (t *trial) waitStream(f func() (transport.Stream, error), what string) transport.Stream {
	t.Helper()
	var s transport.Stream
	// The calls are bounded by themselves; a transport may not keep to that.
	err := waitFor(t, async(func() (err error) { s, err = f(); return err }), 2*t.patience, what)
	require.NoError(t, err)
	return s
}

func openGreeted(t *trial, m transport.Mux) (transport.Stream, error) {
	ctx, cancel := t.soon()
	defer cancel()
	s, err := m.OpenStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("OpenStream: %w", err)
	}
	if _, err := s.Write([]byte{greeting}); err != nil {
		return nil, fmt.Errorf("write the first byte: %w", err)
	}
	return s, nil
}

func acceptGreeted(t *trial, m transport.Mux) (transport.Stream, error) {
	ctx, cancel := t.soon()
	defer cancel()
	s, err := m.AcceptStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("AcceptStream: %w", err)
	}
	var first [1]byte
	if _, err := io.ReadFull(s, first[:]); err != nil {
		return nil, fmt.Errorf("read the first byte: %w", err)
	}
	if first[0] != greeting {
		return nil, fmt.Errorf("the first byte is %q, written was %q", first[0], greeting)
	}
	return s, nil
}

// echo answers every stream of m with its own bytes until m ends.
func echo(t *trial, m transport.Mux) {
	for {
		s, err := m.AcceptStream(t.Context())
		if err != nil {
			return
		}
		go echoStream(s)
	}
}

func echoStream(s transport.Stream) {
	if _, err := io.Copy(s, s); err != nil {
		_ = s.Reset(transport.Internal) // the other end reports it
		return
	}
	_ = s.Close()
}

// roundTrip sends a message over a stream that is echoed and waits for its echo.
func roundTrip(s transport.Stream, limit time.Duration) error {
	if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("SetDeadline: %w", err)
	}
	sent := []byte("is anybody there?")
	if _, err := s.Write(sent); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(s, got); err != nil {
		return fmt.Errorf("read the echo: %w", err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("the echo is %q, sent was %q", got, sent)
	}
	return s.SetDeadline(time.Time{})
}

// requireHealthy proves that streams still open and work on the connection.
// Nobody else may accept on it.
func (t *trial) requireHealthy(c oneWay) {
	t.Helper()
	what := c.name + ": a new stream on the connection"
	require.NoError(t, waitFor(t, async(func() error { return t.healthy(c) }), 3*t.patience, what), what)
}

func (t *trial) healthy(c oneWay) error {
	opened, err := openGreeted(t, c.opener)
	if err != nil {
		return err
	}
	defer opened.Close()
	accepted, err := acceptGreeted(t, c.acceptor)
	if err != nil {
		return err
	}
	go echoStream(accepted)
	return roundTrip(opened, t.patience)
}

// fill writes to s, whose peer does not read, until the deadline. It returns how
// many bytes of the pattern s took. It stops with an error above most bytes.
func fill(s transport.Stream, d time.Duration, most int) (int, error) {
	if err := s.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return 0, fmt.Errorf("SetWriteDeadline: %w", err)
	}
	const piece = 50_021 // a prime, so that the window ends inside a Write
	taken := 0
	for taken <= most {
		n, err := s.Write(pattern(taken, piece))
		taken += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return taken, nil
		}
		if err != nil {
			return taken, fmt.Errorf("Write after %d bytes: %w", taken, err)
		}
	}
	return taken, fmt.Errorf("Write has taken %d bytes although the peer does not read, allowed are %d", taken, most)
}

// most is the harness's bound on what a stalled stream takes.
func (t *trial) most() int {
	if t.harness.MaxBuffered > 0 {
		return t.harness.MaxBuffered
	}
	return 32 << 20
}

// least is what a fresh stream takes for sure while nobody reads.
func (t *trial) least() int {
	if t.harness.MinBuffered > 0 {
		return t.harness.MinBuffered
	}
	return 64 << 10
}

// pattern is n bytes of an endless sequence, from offset. A byte that is lost,
// doubled or moved shows.
func pattern(offset, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		x := uint32(offset+i) * 2654435761
		p[i] = byte(x >> 24)
	}
	return p
}

// requirePattern fails unless got is the pattern's first len(got) bytes.
func requirePattern(t *trial, got []byte) {
	t.Helper()
	want := pattern(0, len(got))
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("byte %d of %d is not what was written", i, len(got))
		}
	}
}

// result is what a Read or Write returned.
type result struct {
	n   int
	err error
}

// pendingRead starts a Read that finds nothing.
func pendingRead(s transport.Stream) <-chan result {
	return async(func() result {
		n, err := s.Read(make([]byte, 1))
		return result{n, err}
	})
}

// pendingWrite starts a Write of more than s takes while nobody reads.
func pendingWrite(t *trial, s transport.Stream) <-chan result {
	p := t.tooMuch()
	return async(func() result {
		n, err := s.Write(p)
		return result{n, err}
	})
}

// tooMuch is more than a stream takes while nobody reads. It is the same memory
// for the whole trial, since many Writes may be pending at once.
func (t *trial) tooMuch() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.large == nil {
		t.large = make([]byte, t.most()+1)
	}
	return t.large
}

func async[T any](f func() T) <-chan T {
	ch := make(chan T, 1)
	go func() { ch <- f() }()
	return ch
}

// wait returns what ch delivers, and fails the trial when that takes too long.
func wait[T any](t *trial, ch <-chan T, what string) T {
	t.Helper()
	return waitFor(t, ch, t.patience, what)
}

// waitLong is wait for work of some size.
func waitLong[T any](t *trial, ch <-chan T, what string) T {
	t.Helper()
	return waitFor(t, ch, 3*t.patience, what)
}

func waitFor[T any](t *trial, ch <-chan T, limit time.Duration, what string) T {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		t.Fatalf("%s: still pending after %v", what, limit)
		panic("unreachable")
	}
}

// waitMoving is wait for work that takes as long as the machine needs. It fails the
// trial when t.moved has stood still for a while.
func waitMoving[T any](t *trial, ch <-chan T, what string) T {
	t.Helper()
	limit := 3 * t.patience
	for {
		before := t.moved.Load()
		timer := time.NewTimer(limit)
		select {
		case v := <-ch:
			timer.Stop()
			return v
		case <-timer.C:
		}
		if t.moved.Load() == before {
			t.Fatalf("%s: still pending, and nothing has moved for %v", what, limit)
		}
	}
}

// stays fails the trial if ch delivers within d.
func stays[T any](t *trial, ch <-chan T, d time.Duration, what string) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case v := <-ch:
		t.Fatalf("%s: %+v", what, v)
	case <-timer.C:
	}
}

// requireTimeout fails unless err is a timeout in every way that callers ask.
func requireTimeout(t *trial, err error, what string) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, what)
	var netErr net.Error
	require.ErrorAs(t, err, &netErr, what)
	require.True(t, netErr.Timeout(), "%s: Timeout() of %v", what, err)
}

// requireReset fails unless err is the StreamError with this code and side.
func requireReset(t *trial, err error, code transport.Code, remote bool, what string) {
	t.Helper()
	var reset *transport.StreamError
	require.ErrorAs(t, err, &reset, what)
	require.Equal(t, transport.StreamError{Code: code, Remote: remote}, *reset, what)
	require.ErrorIs(t, err, code, what)
}
