package policy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

func TestANameThatChangesItsMindNeverReachesWhatIsDenied(t *testing.T) {
	good, accepted := listen(t, "tcp", "127.0.0.1:0")
	port := portOf(t, good)
	_, leaked := listen(t, "tcp", "127.0.0.2:"+port)
	lookups := 0
	flips := resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
		lookups++
		if lookups%2 == 0 {
			return addrs("127.0.0.2"), nil
		}
		return addrs("127.0.0.1"), nil
	})
	saw := &sawControl{}
	d := &policy.Dialer{
		Policy: rules(t, `
enable_access_restrictions: true
allowed_endpoints:
  - "*.example.com"
  - {endpoint: "127.0.0.1:`+port+`", allow_special: true}
`),
		Resolver: flips,
		Control:  saw.control,
	}
	const rounds = 1000
	for round := 1; round <= rounds; round++ {
		c, err := d.DialTarget(t.Context(), policy.Request{Target: target(t, "tcp", "rebind.example.com:"+port)})
		require.Equal(t, round, lookups, "one lookup for one dial")
		if round%2 == 0 {
			require.ErrorIs(t, err, transport.Denied)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, good.String(), c.RemoteAddr().String())
		require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		require.NoError(t, c.Close())
	}
	require.Zero(t, leaked())
	require.LessOrEqual(t, accepted(), rounds/2)
	require.Len(t, saw.list(), rounds/2)
	require.Equal(t, []string{"tcp4 " + good.String()}, slices.Compact(saw.list()))
}

// A name server that changes its mind at every query, for A and AAAA at different times,
// answers with aliases of a metadata service and mixes good addresses with bad ones.
func TestANameServerThatFlipsItsAnswersNeverDirectsADial(t *testing.T) {
	good := []string{"10.20.0.1", "10.20.0.2", "2001:db8:10::1"}
	bad := []string{"127.0.0.1", "169.254.169.254", "10.66.0.1", "::1", "::ffff:169.254.169.254", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fe80::1", "0.0.0.0", "224.0.0.1"}
	var mu sync.Mutex
	random, flips := newRandom(t, 4), 0
	server, err := serveDNS("127.0.0.1:0", func(name string) []string {
		mu.Lock()
		defer mu.Unlock()
		if name == "metadata.example.net" {
			return []string{"169.254.169.254", "fd00:ec2::254"}
		}
		flips++
		switch {
		case flips%2 == 0:
			return []string{pick(random, good...)}
		case random.IntN(4) == 0:
			return []string{"metadata.example.net"}
		case random.IntN(3) == 0:
			return []string{pick(random, good...), pick(random, bad...)}
		case random.IntN(6) == 0:
			return []string{}
		}
		return []string{pick(random, bad...), pick(random, good...)}
	})
	require.NoError(t, err)
	defer server.close()
	inside := map[string]bool{}
	for _, a := range good {
		inside[netip.AddrPortFrom(netip.MustParseAddr(a), 5432).String()] = true
	}
	const dials, workers = 10_000, 8
	var reached, denied, failed atomic.Int64
	d := &policy.Dialer{
		Policy:   rules(t, "enable_access_restrictions: true\nallowed_endpoints: ['*.example.com']\ndenied_endpoints: [10.66.0.0/16]"),
		Resolver: server.resolver(),
		Control: func(_, address string, _ syscall.RawConn) error {
			if !inside[address] {
				t.Errorf("a socket to %s", address)
			}
			return errStopped
		},
	}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range dials / workers {
				// A name for each: net.Resolver answers those who ask for the same at once.
				_, err := d.DialTarget(t.Context(), ask(t, fmt.Sprintf("tcp flip-%d-%d.example.com:5432", worker, i)))
				switch {
				case errors.Is(err, transport.Denied):
					denied.Add(1)
				case errors.Is(err, errStopped):
					reached.Add(1)
				case errors.Is(err, transport.NameNotFound):
					failed.Add(1)
				default:
					t.Errorf("neither denied nor dialled: %v", err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d dials: %d to good addresses, %d denied, %d without an answer; %d queries", dials, reached.Load(), denied.Load(), failed.Load(), server.asked())
	require.GreaterOrEqual(t, server.asked(), 2*dials, "A and AAAA for each dial")
	require.Greater(t, reached.Load(), int64(dials/50))
	require.Greater(t, denied.Load(), int64(dials/4))
}

func TestOneBadAddressRefusesTheWholeAnswer(t *testing.T) {
	document := `
enable_access_restrictions: true
allowed_endpoints: [db.internal]
denied_endpoints: [10.66.0.0/16]
`
	for _, bad := range []string{
		"127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fd00:ec2::254", "0.0.0.0", "::", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2001:0:808:808::5601:5601",
		"2001:db8::5efe:127.0.0.1", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1", "fe80::1%lo", "2001:db8::9%lo", "10.66.0.1", "::ffff:10.66.0.1", "64:ff9b::10.66.0.1", "2002:a42:1::",
	} {
		for at := range 4 {
			answer := slices.Insert(addrs("10.0.0.1", "2001:db8::1", "10.0.0.2"), at, netip.MustParseAddr(bad))
			saw := &sawControl{err: errStopped}
			d := &policy.Dialer{Policy: rules(t, document), Resolver: answer, Control: saw.control}
			_, err := d.DialTarget(t.Context(), ask(t, "tcp db.internal:5432"))
			var denied *policy.Denied
			require.ErrorAs(t, err, &denied, bad)
			require.Equal(t, netip.MustParseAddr(bad).Unmap(), denied.Addr)
			require.Empty(t, saw.list(), "nothing is dialled beside %s", bad)
		}
	}
}

func TestAPolicyThatKnowsNoSpecialAddressesOpensNone(t *testing.T) {
	saw := &sawControl{err: errStopped}
	d := &policy.Dialer{Policy: policy.Func(func(context.Context, policy.Request) error { return nil }), Control: saw.control}
	for _, s := range []string{"tcp 127.0.0.1:1", "tcp [::1]:1", "tcp 169.254.169.254:80", "tcp 0.0.0.0:1", "udp 224.0.0.1:1", "tcp [2002:7f00:1::]:1", "tcp localhost:1"} {
		d.Resolver = addrs("127.0.0.1")
		_, err := d.DialTarget(t.Context(), ask(t, s))
		require.ErrorIs(t, err, transport.Denied, s)
	}
	require.Empty(t, saw.list())
	_, err := d.DialTarget(t.Context(), ask(t, "tcp 10.0.0.1:1"))
	require.ErrorIs(t, err, errStopped)
}

func TestWhatASocketConnectsToIsPermittedByEveryRule(t *testing.T) {
	random := newRandom(t, 2)
	dialled, denied := 0, 0
	for range 1_500 {
		p := randomPolicy(random)
		saw := &sawControl{err: errStopped}
		d := &policy.Dialer{Policy: rules(t, p.text()), Control: saw.control}
		service, port := pick(random, "tcp", "http", "udp"), pick(random, 80, 443, 5432)
		name := pick(random, append(naiveNames, "")...)
		var answer answers
		for range 1 + random.IntN(3) {
			answer = append(answer, pick(random, randomAddr(random), netip.MustParseAddr(pick(random, "10.0.0.1", "10.0.1.50", "192.168.0.7", "8.8.8.8", "2001:db8::1", "fd00::7"))))
		}
		host := name
		if name == "" {
			answer = answer[:1]
			host = answer[0].Unmap().String()
		}
		d.Resolver = slices.Clone(answer)
		_, err := d.DialTarget(t.Context(), policy.Request{Target: policy.Target{Service: service, Host: host, Port: uint16(port)}})
		want := map[string]bool{}
		permitted := true
		for _, a := range answer {
			permitted = permitted && p.permits(service, name, a, port)
			network := map[string]string{"tcp": "tcp", "http": "tcp", "udp": "udp"}[service]
			if a.Unmap().Is4() {
				network += "4"
			} else {
				network += "6"
			}
			want[network+" "+netip.AddrPortFrom(a.Unmap(), uint16(port)).String()] = true
		}
		if !permitted {
			require.ErrorIs(t, err, transport.Denied, "%s\n%s %v", p.text(), host, answer)
			require.Empty(t, saw.list())
			denied++
			continue
		}
		require.ErrorIs(t, err, errStopped, "%s\n%s %v", p.text(), host, answer)
		got := map[string]bool{}
		for _, s := range saw.list() {
			got[s] = true
		}
		require.Equal(t, want, got)
		dialled++
	}
	require.Greater(t, dialled, 200)
	require.Greater(t, denied, 200)
	t.Logf("%d dialled, %d denied", dialled, denied)
}
