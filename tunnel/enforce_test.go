package tunnel_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// policyFile is a policy on disk that a test rewrites.
type policyFile struct {
	*policy.File
	t *testing.T
}

func newPolicyFile(t *testing.T, document string) *policyFile {
	f := &policyFile{File: &policy.File{Path: filepath.Join(t.TempDir(), "policy.yaml"), Interval: 20 * time.Millisecond}, t: t}
	f.write(document)
	require.NoError(t, f.Reload())
	return f
}

// write replaces the file as an editor or a deployment does.
func (f *policyFile) write(document string) {
	f.t.Helper()
	next := f.Path + ".next"
	require.NoError(f.t, os.WriteFile(next, []byte(document), 0o600))
	require.NoError(f.t, os.Rename(next, f.Path))
}

// requireWithdrawn demands that the stream ends with Denied, and soon.
func requireWithdrawn(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := io.Copy(io.Discard, c)
	require.ErrorIs(t, err, transport.Denied)
	require.Equal(t, &transport.StreamError{Code: transport.Denied, Remote: true}, err)
}

func TestATighteningResetsTheStreamsThatItForbids(t *testing.T) {
	target := tcpEcho(t)
	_, port, err := net.SplitHostPort(target)
	require.NoError(t, err)
	const (
		head    = "enable_access_restrictions: true\nallowed_endpoints:\n"
		opened  = "  - {endpoint: 127.0.0.1, allow_special: true}\n"
		product = "  - {service: " + echoService + "}\n"
		alices  = "  - {service: test.example/mine, subjects: [alice]}\n"
		bobs    = "  - {service: test.example/mine, subjects: [bob]}\n"
		denied  = "denied_endpoints: [one.internal]\n"
	)
	file := newPolicyFile(t, head+opened+product+alices)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = file.Run(ctx) }()
	f := start(t, nil, &tunnel.Agent{Policy: file, Resolver: fakeResolver(func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	})})
	require.NoError(t, f.agent.Handle(echoService, echo))
	require.NoError(t, f.agent.Handle("test.example/mine", echo))
	s := f.session(t)
	open := func(service, address, subject string) transport.Stream {
		c, err := s.Open(t.Context(), tunnel.Target{Service: service, Address: address, Subject: subject})
		require.NoError(t, err)
		requireEcho(t, c)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	one, two := open("tcp", "one.internal:"+port, "alice"), open("http", "two.internal:"+port, "alice")
	own, mine := open(echoService, "", "alice"), open("test.example/mine", "", "alice")

	// By name, through a file that is only written.
	file.write(head + opened + product + alices + denied)
	requireWithdrawn(t, one)
	for _, c := range []transport.Stream{two, own, mine} {
		requireEcho(t, c)
	}
	// By subject.
	file.write(head + opened + product + bobs)
	requireWithdrawn(t, mine)
	// A product's service.
	file.write(head + opened)
	requireWithdrawn(t, own)
	// By the address behind a name that is allowed as before.
	requireEcho(t, two)
	file.write(head + "  - two.internal\n")
	requireWithdrawn(t, two)
	require.EqualValues(t, 4, f.agent.Stats().Withdrawn)
	_, err = s.Open(t.Context(), tunnel.Target{Service: "tcp", Address: "two.internal:" + port})
	require.ErrorIs(t, err, transport.Denied)

	// Loosening resets nothing, a broken file neither.
	file.write(head + opened)
	require.Eventually(t, func() bool { return file.Status().Reloads == 6 }, 10*time.Second, 10*time.Millisecond)
	again := open("tcp", "one.internal:"+port, "alice")
	file.write("enable_access_restrictions: [")
	require.ErrorContains(t, file.Reload(), "policy")
	requireEcho(t, again)
	require.EqualValues(t, 4, f.agent.Stats().Withdrawn)
}

// A stream may be stuck: its caller in a Write that nobody reads, its target silent.
func TestATighteningReachesEveryStreamOnEveryCarrier(t *testing.T) {
	for carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			file := newPolicyFile(t, `{"enable_access_restrictions": true, "allowed_endpoints": [{"endpoint": "127.0.0.1", "allow_special": true}]}`)
			target, accepted := oneConnection(t)
			g, a := connectUnder(t, carrier, file)
			dial := g.Dialer("agent-1", "alice")
			stuck, err := dial(t.Context(), "tcp", target)
			require.NoError(t, err)
			defer stuck.Close()
			defer (<-accepted).Close()
			wrote := make(chan error, 1)
			go func() {
				var err error
				for err == nil {
					_, err = stuck.Write(make([]byte, 64<<10))
				}
				wrote <- err
			}()
			quiet := tcpEcho(t)
			var idle []net.Conn
			for range 50 {
				c, err := dial(t.Context(), "tcp", quiet)
				require.NoError(t, err)
				defer c.Close()
				idle = append(idle, c)
			}
			file.write("enable_access_restrictions: true")
			began := time.Now()
			require.NoError(t, file.Reload())
			for _, c := range idle {
				requireWithdrawn(t, c)
			}
			select {
			case err := <-wrote:
				require.ErrorIs(t, err, transport.Denied)
			case <-time.After(10 * time.Second):
				t.Fatal("the caller is still in its Write")
			}
			t.Logf("%d streams reset after %s", len(idle)+1, time.Since(began).Round(time.Millisecond))
			require.EqualValues(t, len(idle)+1, a.Stats().Withdrawn)
		})
	}
}

func TestATighteningBreaksTheConnectionToTheTarget(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	ended := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer c.Close()
		_, err = io.Copy(io.Discard, c)
		ended <- err
	}()
	file := newPolicyFile(t, `{"enable_access_restrictions": true, "allowed_endpoints": [{"endpoint": "127.0.0.1", "allow_special": true}]}`)
	f := start(t, nil, &tunnel.Agent{Policy: file})
	c, err := f.session(t).Open(t.Context(), tunnel.Target{Service: "tcp", Address: ln.Addr().String()})
	require.NoError(t, err)
	defer c.Close()
	file.write("enable_access_restrictions: true")
	require.NoError(t, file.Reload())
	requireWithdrawn(t, c)
	select {
	case err = <-ended:
		require.Error(t, err, "a cut that looks like a clean end")
	case <-time.After(10 * time.Second):
		t.Fatal("the target still has its connection")
	}
}

func TestAStreamThatWaitsForItsAnswerIsResetToo(t *testing.T) {
	file := newPolicyFile(t, "enable_access_restrictions: true\nallowed_endpoints: [slow.internal]\n")
	asked, answer := make(chan struct{}), make(chan struct{})
	f := start(t, nil, &tunnel.Agent{Policy: file, Resolver: fakeResolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
		close(asked)
		select {
		case <-answer:
		case <-ctx.Done():
		}
		return []netip.Addr{netip.MustParseAddr("10.255.255.1")}, nil
	})})
	s := f.session(t)
	opened := make(chan error, 1)
	go func() {
		_, err := s.Open(t.Context(), tunnel.Target{Service: "tcp", Address: "slow.internal:1"})
		opened <- err
	}()
	<-asked
	file.write("enable_access_restrictions: true")
	require.NoError(t, file.Reload())
	require.ErrorIs(t, <-opened, transport.Denied)
	close(answer)
	require.EqualValues(t, 1, f.agent.Stats().Withdrawn)
}

func TestStreamsThatHaveEndedAreForgotten(t *testing.T) {
	file := newPolicyFile(t, "enable_access_restrictions: true\nallowed_endpoints: [{service: "+echoService+"}, {service: test.example/nobody}]\n")
	f := start(t, nil, &tunnel.Agent{Policy: file})
	require.NoError(t, f.agent.Handle(echoService, echo))
	s := f.session(t)
	for range 5 {
		c, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		_, err = s.Open(t.Context(), tunnel.Target{Service: "test.example/nobody"})
		require.ErrorIs(t, err, transport.UnknownService)
		_, err = s.Open(t.Context(), tunnel.Target{Service: "tcp", Address: "db:1"})
		require.ErrorIs(t, err, transport.Denied)
	}
	require.Eventually(t, func() bool { return f.agent.Stats().Streams == 0 }, 10*time.Second, time.Millisecond)
	witness, err := s.Open(t.Context(), echoTarget())
	require.NoError(t, err)
	defer witness.Close()
	file.write("enable_access_restrictions: true")
	require.NoError(t, file.Reload())
	requireWithdrawn(t, witness)
	require.EqualValues(t, 1, f.agent.Stats().Withdrawn)
}

// closing allows a target until it was dialled, and tells nobody that it changed.
type closing struct {
	policy.SpecialAllower
	mu    sync.Mutex
	addrs int
}

func (p *closing) OnChange(func()) (stop func()) { return func() {} }

func (p *closing) Authorize(_ context.Context, r policy.Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Addr.IsValid() {
		p.addrs++
	}
	if p.addrs > 1 {
		return &policy.Denied{Target: r.Target, Reason: "closed meanwhile"}
	}
	return nil
}

func TestAChangeDuringTheDialIsNotMissed(t *testing.T) {
	f := start(t, nil, &tunnel.Agent{Policy: &closing{SpecialAllower: policy.InsecureAllowAll()}})
	_, err := f.session(t).Open(t.Context(), tunnel.Target{Service: "tcp", Address: tcpEcho(t)})
	require.ErrorIs(t, err, transport.Denied)
	require.ErrorContains(t, err, "closed meanwhile")
}

// faulty panics when it is asked again.
type faulty struct {
	policy.SpecialAllower
	changed func()
	broken  atomic.Bool
}

func (p *faulty) OnChange(f func()) (stop func()) {
	p.changed = f
	return func() {}
}

func (p *faulty) Authorize(context.Context, policy.Request) error {
	if p.broken.Load() {
		panic("a bug in a product")
	}
	return nil
}

func TestAPolicyThatPanicsWhenAskedAgainDenies(t *testing.T) {
	p := &faulty{SpecialAllower: policy.InsecureAllowAll()}
	f := start(t, nil, &tunnel.Agent{Policy: p})
	require.NoError(t, f.agent.Handle(echoService, echo))
	c, err := f.session(t).Open(t.Context(), echoTarget())
	require.NoError(t, err)
	defer c.Close()
	p.broken.Store(true)
	p.changed()
	requireWithdrawn(t, c)
	require.EqualValues(t, 1, f.agent.Stats().Panics)
}

func TestGatewaysKnowThePolicyByItsDigest(t *testing.T) {
	file := newPolicyFile(t, "enable_access_restrictions: true")
	changed := make(chan tunnel.AgentInfo, 1)
	f := start(t, &tunnel.Gateway{Hooks: &tunnel.Hooks{PolicyChanged: func(info tunnel.AgentInfo) { changed <- info }}}, &tunnel.Agent{Policy: file})
	s := f.session(t)
	first := file.Digest()
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", first)
	require.Equal(t, first, s.Agent().Policy)

	file.write("enable_access_restrictions: false")
	require.NoError(t, file.Reload())
	require.NotEqual(t, first, file.Digest())
	require.Equal(t, file.Digest(), (<-changed).Policy)
	require.Equal(t, file.Digest(), s.Agent().Policy)

	none := start(t, nil, nil)
	require.Empty(t, none.session(t).Agent().Policy, "a policy without a digest")
}

func TestAnAuditIsLoggedOncePerStream(t *testing.T) {
	var log lockedBuffer
	rules, err := policy.Parse(strings.NewReader(
		`{"enable_access_restrictions": true, "audit_only": true, "allowed_endpoints": ["10.0.0.0/8", {"endpoint": "127.0.0.1", "allow_special": true}]}`))
	require.NoError(t, err)
	target := tcpEcho(t)
	f := start(t, nil, &tunnel.Agent{
		Policy: rules, Logger: slog.New(slog.NewTextHandler(&log, nil)), DialTimeout: 50 * time.Millisecond,
		Resolver: fakeResolver(func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}),
	})
	require.NoError(t, f.agent.Handle(echoService, echo))
	s := f.session(t)
	for i, tt := range []struct {
		service, address string
		audited          uint64
	}{
		{"tcp", target, 0},                // allowed
		{"tcp", "web.internal:80", 1},     // may be allowed by its address, and is not
		{"tcp", "192.0.2.1:80", 2},        // an address
		{echoService, "", 3},              // not dialled
		{"tcp", "169.254.169.254:80", 3},  // denied in any case
		{"tcp", "other.internal:8080", 4}, // by name
	} {
		c, err := s.Open(t.Context(), tunnel.Target{Service: tt.service, Address: tt.address, Subject: "alice"})
		if err == nil {
			require.NoError(t, c.Close())
		}
		require.Equal(t, tt.audited, f.agent.Stats().Audited, "%d: %v", i, err)
	}
	require.Equal(t, 4, strings.Count(log.String(), "audit_only: the policy would deny a stream"))
	require.Equal(t, 4, strings.Count(log.String(), "no rule allows it"))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
