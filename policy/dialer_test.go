package policy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// answers is a resolver that knows one answer for every name.
type answers []netip.Addr

func (a answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return a, nil }

func addrs(texts ...string) answers {
	list := make(answers, len(texts))
	for i, s := range texts {
		list[i] = netip.MustParseAddr(s)
	}
	return list
}

type resolverFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return f(ctx, network, host)
}

// listen echoes on an address whose port may be 0, and counts connections.
func listen(tb testing.TB, network, address string) (at net.Addr, accepted func() int) {
	tb.Helper()
	l, err := net.Listen(network, address)
	require.NoError(tb, err)
	var mu sync.Mutex
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func portOf(tb testing.TB, a net.Addr) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(a.String())
	require.NoError(tb, err)
	return port
}

func requireEcho(tb testing.TB, c net.Conn) {
	tb.Helper()
	_, err := c.Write([]byte("hello"))
	require.NoError(tb, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(c, got)
	require.NoError(tb, err)
	require.Equal(tb, "hello", string(got))
}

// sawControl records the addresses that sockets are about to connect to. With an
// error it also stops them there, so that no packet leaves.
type sawControl struct {
	mu    sync.Mutex
	err   error
	addrs []string
}

func (s *sawControl) control(network, address string, _ syscall.RawConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = append(s.addrs, network+" "+address)
	return s.err
}

func (s *sawControl) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs
}

var errStopped = errors.New("stopped before it connected")

func TestADialReachesItsTarget(t *testing.T) {
	tcp4, _ := listen(t, "tcp", "127.0.0.1:0")
	tcp6, _ := listen(t, "tcp", "[::1]:0")
	unix, _ := listen(t, "unix", filepath.Join(t.TempDir(), "x.sock"))
	d := &policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: addrs("::ffff:127.0.0.1", "127.0.0.1")}
	for _, tt := range []struct {
		service, address string
		want             net.Addr
	}{
		{"tcp", tcp4.String(), tcp4},
		{"http", tcp4.String(), tcp4},
		{"tcp", tcp6.String(), tcp6},
		{"tcp", "db.internal:" + portOf(t, tcp4), tcp4},
		{"unix", unix.String(), unix},
	} {
		c, err := d.DialTarget(t.Context(), policy.Request{Target: target(t, tt.service, tt.address), Addr: netip.MustParseAddr("192.0.2.1")})
		require.NoError(t, err)
		require.Equal(t, tt.want.String(), c.RemoteAddr().String())
		require.Equal(t, tt.want.Network(), c.RemoteAddr().Network())
		require.Implements(t, (*interface{ CloseWrite() error })(nil), c)
		requireEcho(t, c)
		require.NoError(t, c.Close())
	}
}

func TestADialSendsDatagrams(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = pc.Close() })
	c, err := (&policy.Dialer{Policy: policy.InsecureAllowAll()}).DialTarget(t.Context(), policy.Request{Target: target(t, "udp", pc.LocalAddr().String())})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, 9)
	n, from, err := pc.ReadFrom(got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got[:n]))
	require.Equal(t, c.LocalAddr().String(), from.String())
}

func TestAZeroDialerDeniesEverything(t *testing.T) {
	saw := &sawControl{}
	asked := resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
		t.Error("asked the resolver")
		return nil, nil
	})
	for _, d := range []*policy.Dialer{{}, {Policy: policy.DenyAll()}, {Policy: (*policy.Rules)(nil)}, {Policy: policy.All()}} {
		d.Resolver, d.Control = asked, saw.control
		for _, s := range []string{"tcp db:1", "tcp 10.0.0.1:1", "tcp 127.0.0.1:1", "udp db:1", "unix /x"} {
			_, err := d.DialTarget(t.Context(), ask(t, s))
			var denied *policy.Denied
			require.ErrorAs(t, err, &denied)
			require.ErrorIs(t, err, transport.Denied)
		}
	}
	require.Empty(t, saw.list())
}

func TestAProductServiceHasNothingToDial(t *testing.T) {
	_, err := (&policy.Dialer{Policy: policy.InsecureAllowAll()}).DialTarget(t.Context(), ask(t, "example.com/x a"))
	require.ErrorIs(t, err, transport.UnknownService)
}

func TestThePolicysOwnErrorComesBack(t *testing.T) {
	no := errors.New("not on Sundays")
	d := &policy.Dialer{Policy: policy.Func(func(context.Context, policy.Request) error { return no })}
	_, err := d.DialTarget(t.Context(), ask(t, "tcp db:1"))
	require.ErrorIs(t, err, no)
}

func TestThePolicySeesTheNameAndThenEachAddress(t *testing.T) {
	var seen []policy.Request
	d := &policy.Dialer{
		Resolver: addrs("2001:db8::1", "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
		Control:  (&sawControl{err: errStopped}).control,
		Policy: policy.Func(func(_ context.Context, r policy.Request) error {
			seen = append(seen, r)
			return nil
		}),
	}
	r := policy.Request{Subject: "alice", Agent: "a1", Target: target(t, "tcp", "db:5432"), Labels: map[string]string{"k": "v"}}
	stale := r
	stale.Addr = netip.MustParseAddr("192.0.2.1")
	_, err := d.DialTarget(t.Context(), stale)
	require.ErrorIs(t, err, errStopped)
	want := []policy.Request{r, r, r, r}
	want[1].Addr, want[2].Addr, want[3].Addr = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	require.Equal(t, want, seen)
}

func TestAnAnswerThatIsNoPlainAddressIsRefused(t *testing.T) {
	saw := &sawControl{}
	asked := 0
	d := &policy.Dialer{Control: saw.control, Policy: policy.All(recorder{special: true, asked: &asked})}
	d.Resolver = addrs("2001:db8::1%lo")
	_, err := d.DialTarget(t.Context(), ask(t, "tcp db:1"))
	require.ErrorIs(t, err, transport.Denied)
	d.Resolver = answers{netip.MustParseAddr("10.0.0.1"), netip.Addr{}}
	_, err = d.DialTarget(t.Context(), ask(t, "tcp db:1"))
	require.ErrorIs(t, err, transport.Internal)
	require.Equal(t, 2, asked, "about the names only")
	require.Empty(t, saw.list())
}

func TestAFailedDialHasACode(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := closed.Addr().String()
	require.NoError(t, closed.Close())
	socket := filepath.Join(t.TempDir(), "stale.sock")
	stale, err := net.Listen("unix", socket)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())

	fails := func(err error) policy.Resolver {
		return resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) { return nil, err })
	}
	stops := func(err error) func(string, string, syscall.RawConn) error { return (&sawControl{err: err}).control }
	for name, tt := range map[string]struct {
		target  string
		dialer  policy.Dialer
		code    transport.Code
		matches error
	}{
		"nobody listens":            {"tcp " + refused, policy.Dialer{}, transport.Refused, syscall.ECONNREFUSED},
		"nobody listens on socket":  {"unix " + socket, policy.Dialer{}, transport.Refused, syscall.ECONNREFUSED},
		"no socket":                 {"unix " + socket + "x", policy.Dialer{}, transport.NameNotFound, os.ErrNotExist},
		"no such name":              {"tcp db:1", policy.Dialer{Resolver: fails(&net.DNSError{IsNotFound: true})}, transport.NameNotFound, nil},
		"no answer of the resolver": {"tcp db:1", policy.Dialer{Resolver: fails(&net.DNSError{IsTimeout: true})}, transport.Timeout, os.ErrDeadlineExceeded},
		"a failing resolver":        {"tcp db:1", policy.Dialer{Resolver: fails(&net.DNSError{Err: "server misbehaving", IsTemporary: true})}, transport.Unreachable, nil},
		"an empty answer":           {"tcp db:1", policy.Dialer{Resolver: addrs()}, transport.NameNotFound, nil},
		"an invalid answer":         {"tcp db:1", policy.Dialer{Resolver: answers{netip.Addr{}}}, transport.Internal, nil},
		"no route to the host":      {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(syscall.EHOSTUNREACH)}, transport.Unreachable, syscall.EHOSTUNREACH},
		"no route to the network":   {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(syscall.ENETUNREACH)}, transport.Unreachable, syscall.ENETUNREACH},
		"forbidden by the system":   {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(syscall.EPERM)}, transport.Unreachable, os.ErrPermission},
		"too many open files":       {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(syscall.EMFILE)}, transport.Overloaded, syscall.EMFILE},
		"reset":                     {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(syscall.ECONNRESET)}, transport.TargetReset, syscall.ECONNRESET},
		"timed out by the system":   {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(syscall.ETIMEDOUT)}, transport.Timeout, os.ErrDeadlineExceeded},
		"anything else":             {"tcp 10.0.0.1:1", policy.Dialer{Control: stops(errStopped)}, transport.Internal, errStopped},
	} {
		d := tt.dialer
		d.Policy = policy.InsecureAllowAll()
		r := ask(t, tt.target)
		_, err := d.DialTarget(t.Context(), r)
		var failed *policy.DialError
		require.ErrorAs(t, err, &failed, name)
		require.Equal(t, tt.code, failed.Code, "%s: %v", name, err)
		require.ErrorIs(t, err, tt.code)
		require.NotErrorIs(t, err, transport.Denied)
		require.Equal(t, r.Target, failed.Target)
		require.Equal(t, tt.code == transport.Timeout, failed.Timeout())
		require.NotContains(t, err.Error(), "\n")
		if tt.matches != nil {
			require.ErrorIs(t, err, tt.matches, name)
		}
	}
}

func TestTheCodeOfSeveralAttemptsSaysMostAboutTheTarget(t *testing.T) {
	errs := map[string]error{"10.0.0.1:1": syscall.ENETUNREACH, "10.0.0.2:1": syscall.ETIMEDOUT, "10.0.0.3:1": syscall.ECONNREFUSED, "10.0.0.4:1": errStopped}
	d := &policy.Dialer{
		Policy:        policy.InsecureAllowAll(),
		FallbackDelay: time.Hour,
		Control:       func(_, address string, _ syscall.RawConn) error { return errs[address] },
	}
	for _, tt := range []struct {
		answer answers
		code   transport.Code
	}{
		{addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"), transport.Refused},
		{addrs("10.0.0.1", "10.0.0.2", "10.0.0.4"), transport.Timeout},
		{addrs("10.0.0.4", "10.0.0.1"), transport.Unreachable},
	} {
		d.Resolver = tt.answer
		_, err := d.DialTarget(t.Context(), ask(t, "tcp db:1"))
		require.ErrorIs(t, err, tt.code)
		for _, a := range tt.answer {
			require.ErrorIs(t, err, errs[a.String()+":1"], "every attempt is in the error")
		}
		require.Equal(t, len(tt.answer)-1, strings.Count(err.Error(), "; "))
	}
}

func TestADialEndsWithItsContext(t *testing.T) {
	hangs := resolverFunc(func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "gave up", IsTemporary: true}
	})
	hole := blackHole(t, "127.0.0.5:0").String()
	gone := errors.New("the caller went away")
	for name, d := range map[string]*policy.Dialer{
		"while it resolves":          {Resolver: hangs},
		"while it connects":          {Resolver: addrs("127.0.0.5")},
		"while it connects to three": {Resolver: addrs("127.0.0.5", "127.0.0.6", "127.0.0.7"), FallbackDelay: time.Millisecond},
	} {
		d.Policy = policy.InsecureAllowAll()
		if name == "while it connects to three" {
			port := portOf(t, tcpAddr(hole))
			blackHole(t, "127.0.0.6:"+port)
			blackHole(t, "127.0.0.7:"+port)
		}
		r := policy.Request{Target: target(t, "tcp", "db:"+portOf(t, tcpAddr(hole)))}

		ctx, cancel := context.WithCancelCause(t.Context())
		stop := time.AfterFunc(20*time.Millisecond, func() { cancel(gone) })
		_, err := d.DialTarget(ctx, r)
		require.ErrorIs(t, err, transport.Canceled, name)
		require.ErrorIs(t, err, gone, name)
		stop.Stop()

		ctx, cancelTimeout := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = d.DialTarget(ctx, r)
		require.ErrorIs(t, err, transport.Timeout, name)
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		cancelTimeout()

		d.Timeout = 20 * time.Millisecond
		ctx, cancelTimeout = context.WithTimeout(t.Context(), 5*time.Second)
		_, err = d.DialTarget(ctx, r)
		require.NoError(t, ctx.Err(), "the dialer's own timeout is what ended it")
		cancelTimeout()
		require.ErrorIs(t, err, transport.Timeout, name)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, name)
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		require.True(t, netErr.Timeout())
	}
}

func TestASilentAddressIsPassedByItsNeighbour(t *testing.T) {
	good, accepted := listen(t, "tcp", "127.0.0.1:0")
	port := portOf(t, good)
	blackHole(t, "127.0.0.5:"+port)
	d := &policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: addrs("127.0.0.5", "127.0.0.1"), FallbackDelay: 10 * time.Millisecond, Timeout: time.Hour}
	c, err := d.DialTarget(t.Context(), policy.Request{Target: target(t, "tcp", "db:"+port)})
	require.NoError(t, err)
	require.Equal(t, good.String(), c.RemoteAddr().String())
	requireEcho(t, c)
	require.NoError(t, c.Close())
	require.Equal(t, 1, accepted())
}

func TestTheNextAddressIsTriedAfterAQuarterOfASecond(t *testing.T) {
	good, _ := listen(t, "tcp", "127.0.0.1:0")
	port := portOf(t, good)
	blackHole(t, "127.0.0.5:"+port)
	began := time.Now()
	var mu sync.Mutex
	tried := map[string]time.Duration{}
	d := &policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: addrs("127.0.0.5", "127.0.0.1"), Control: func(_, address string, _ syscall.RawConn) error {
		mu.Lock()
		defer mu.Unlock()
		tried[address] = time.Since(began)
		return nil
	}}
	c, err := d.DialTarget(t.Context(), policy.Request{Target: target(t, "tcp", "db:"+port)})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Len(t, tried, 2)
	require.GreaterOrEqual(t, tried[good.String()], 250*time.Millisecond, "the delay that RFC 8305 recommends")
}

func TestTheLosersOfARaceAreClosed(t *testing.T) {
	answer := addrs("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8")
	port := "0"
	var accepts, conns sync.WaitGroup
	var listeners []net.Listener
	for _, a := range answer {
		l, err := net.Listen("tcp", net.JoinHostPort(a.String(), port))
		require.NoError(t, err)
		port = portOf(t, l.Addr())
		listeners = append(listeners, l)
		accepts.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				conns.Go(func() {
					_, _ = c.Read(make([]byte, 1))
					_ = c.Close()
				})
			}
		})
	}
	for range 200 {
		// All sockets connect in the same moment, so that several of them succeed.
		var all sync.WaitGroup
		all.Add(len(answer))
		d := &policy.Dialer{
			Policy: policy.InsecureAllowAll(), Resolver: answer, FallbackDelay: time.Nanosecond,
			Control: func(string, string, syscall.RawConn) error {
				all.Done()
				all.Wait()
				return nil
			},
		}
		c, err := d.DialTarget(t.Context(), policy.Request{Target: target(t, "tcp", "db:"+port)})
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	for _, l := range listeners {
		require.NoError(t, l.Close())
	}
	accepts.Wait()
	conns.Wait()
}

func TestARefusingAddressIsPassedAtOnce(t *testing.T) {
	good, _ := listen(t, "tcp", "127.0.0.1:0")
	d := &policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: addrs("127.0.0.6", "127.0.0.7", "127.0.0.1"), FallbackDelay: time.Hour}
	c, err := d.DialTarget(t.Context(), policy.Request{Target: target(t, "tcp", "db:"+portOf(t, good))})
	require.NoError(t, err)
	require.Equal(t, good.String(), c.RemoteAddr().String())
	require.NoError(t, c.Close())
}

func TestAddressFamiliesTakeTurns(t *testing.T) {
	for _, tt := range []struct {
		answer answers
		want   []string
	}{
		{addrs("10.0.0.1", "10.0.0.2", "10.0.0.3"), []string{"tcp4 10.0.0.1:1", "tcp4 10.0.0.2:1", "tcp4 10.0.0.3:1"}},
		{addrs("2001:db8::1", "2001:db8::2", "2001:db8::3", "10.0.0.1"), []string{"tcp6 [2001:db8::1]:1", "tcp4 10.0.0.1:1", "tcp6 [2001:db8::2]:1", "tcp6 [2001:db8::3]:1"}},
		{addrs("10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"), []string{"tcp4 10.0.0.1:1", "tcp6 [2001:db8::1]:1", "tcp4 10.0.0.2:1", "tcp6 [2001:db8::2]:1"}},
	} {
		saw := &sawControl{err: errStopped}
		d := &policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: tt.answer, Control: saw.control, FallbackDelay: time.Hour}
		_, err := d.DialTarget(t.Context(), ask(t, "tcp db:1"))
		require.ErrorIs(t, err, errStopped)
		require.Equal(t, tt.want, saw.list())
	}
}

func TestALongAnswerIsNotAScan(t *testing.T) {
	var answer answers
	for a := netip.MustParseAddr("10.0.0.1"); len(answer) < 1000; a = a.Next() {
		answer = append(answer, a)
	}
	saw := &sawControl{err: errStopped}
	d := &policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: answer, Control: saw.control}
	_, err := d.DialTarget(t.Context(), ask(t, "tcp db:1"))
	require.ErrorIs(t, err, errStopped)
	require.Len(t, saw.list(), 16)
	d.Policy = rules(t, `denied_endpoints: ["`+answer[999].String()+`"]`)
	_, err = d.DialTarget(t.Context(), ask(t, "tcp db:1"))
	require.ErrorIs(t, err, transport.Denied, "every address is checked")
	require.Len(t, saw.list(), 16)
}

func tcpAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// blackHole is an address at which a connection is neither made nor refused: a
// listener whose queue is full drops what comes.
func blackHole(t *testing.T, address string) net.Addr {
	t.Helper()
	at := netip.MustParseAddrPort(address)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	port := name.(*syscall.SockaddrInet4).Port
	addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), uint16(port)))
	for {
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if netErr := net.Error(nil); errors.As(err, &netErr) && netErr.Timeout() {
			return addr
		}
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
	}
}
