package policy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

// The corpus in testdata/corpus is held against a dialer, and the oracle is the address
// that a socket was about to connect to.
func TestNoHostileTargetReachesASocket(t *testing.T) {
	c, err := newCorpus()
	require.NoError(t, err)
	c.dialer.Resolver = c.resolver()
	require.NoError(t, c.try(20_000))
	c.check(t, 20_000)
}

func (r report) check(t *testing.T, generated int) {
	t.Helper()
	t.Logf("%d hostile and %d legitimate targets by hand, %d generated of which %d were dialled; %d queries", r.Hostile, r.Legitimate, r.Generated, r.Dialled, r.Queries)
	require.Empty(t, r.Faults)
	require.GreaterOrEqual(t, r.Hostile, 500)
	require.GreaterOrEqual(t, r.Legitimate, 100)
	require.Equal(t, generated, r.Generated)
	require.Greater(t, r.Dialled, generated/50)
}

// report is what a run found out.
type report struct {
	Hostile, Legitimate, Generated, Dialled, Queries int
	Faults                                           []string
}

// hostsFile says what /etc/hosts does where the system's resolvers are tried.
const hostsFile = `127.0.0.1 localhost
::1 localhost
::1 ip6-localhost
127.0.0.1 hosts-loop.internal
::1 hosts-loop6.internal
169.254.169.254 hosts-meta.internal
10.20.0.1 hosts-mixed.internal
127.0.0.1 hosts-mixed.internal
10.20.0.77 hosts-db.internal
127.0.0.1 hosts-local.internal
`

type corpus struct {
	report
	zone   map[string][]string
	hosts  []string // all names that mean something
	dialer *policy.Dialer
	saw    sawControl
}

func newCorpus() (*corpus, error) {
	c := &corpus{zone: map[string][]string{}, saw: sawControl{err: errStopped}}
	err := eachLine("zone.txt", func(fields []string) error {
		c.zone[fields[0]] = fields[1:]
		c.hosts = append(c.hosts, fields[0])
		return nil
	})
	if err != nil {
		return nil, err
	}
	file := &policy.File{Path: filepath.Join("testdata", "corpus", "policy.yaml")}
	if err := file.Reload(); err != nil {
		return nil, err
	}
	c.dialer = &policy.Dialer{Policy: file, Control: c.saw.control, Timeout: time.Minute}
	return c, nil
}

func (c *corpus) try(generated int) error {
	if err := errors.Join(c.tryHostile(), c.tryLegitimate()); err != nil {
		return err
	}
	c.tryGenerated(generated)
	return nil
}

// resolver reads the hosts file and the zone, as the system's resolvers do.
func (c *corpus) resolver() policy.Resolver {
	return resolverFunc(func(_ context.Context, _, host string) (found []netip.Addr, err error) {
		for line := range strings.Lines(hostsFile) {
			if fields := strings.Fields(line); fields[1] == host {
				found = append(found, netip.MustParseAddr(fields[0]))
			}
		}
		if !strings.Contains(host, ".") && len(found) == 0 {
			host += ".corp.test"
		}
		for aliases := 0; aliases < 8 && len(c.zone[host]) > 0; aliases++ {
			for _, record := range c.zone[host] {
				if addr, err := netip.ParseAddr(record); err == nil {
					found = append(found, addr)
				} else {
					host = record
				}
			}
			if len(found) > 0 {
				break
			}
		}
		if host == "localhost" {
			found = append(found, netip.MustParseAddr("127.0.0.1"))
		}
		if len(found) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return found, nil
	})
}

// eachLine calls f with the fields of each line of a file of the corpus.
func eachLine(file string, f func(fields []string) error) error {
	text, err := os.ReadFile(filepath.Join("testdata", "corpus", file))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] != "#" {
			if err := f(fields); err != nil {
				return fmt.Errorf("%s: %s: %w", file, line, err)
			}
		}
	}
	return nil
}

// reach returns the addresses that a socket was about to connect to, or that a probe
// may send to.
func (c *corpus) reach(service, address string) (reached []string, err error) {
	t, err := policy.ParseTarget(service, address)
	if err != nil {
		return nil, err
	}
	r := policy.Request{Target: t}
	if service == "icmp" {
		addrs, err := c.dialer.Resolve(context.Background(), r)
		for _, a := range addrs {
			reached = append(reached, a.String())
		}
		return reached, err
	}
	c.saw.mu.Lock()
	c.saw.addrs = nil
	c.saw.mu.Unlock()
	_, err = c.dialer.DialTarget(context.Background(), r)
	for _, s := range c.saw.list() {
		_, at, _ := strings.Cut(s, " ")
		reached = append(reached, at)
	}
	slices.Sort(reached)
	return reached, err
}

func (c *corpus) fault(format string, args ...any) {
	if len(c.Faults) < 50 {
		c.Faults = append(c.Faults, fmt.Sprintf(format, args...))
	}
}

func (c *corpus) tryHostile() error {
	try := func(service, address string) {
		c.Hostile++
		if reached, err := c.reach(service, address); len(reached) > 0 || err == nil {
			c.fault("escape: %s %q reached %v (%v)", service, address, reached, err)
		}
	}
	// Spelled so that the policy would allow the port, or the address, if they got through.
	for _, host := range hostileHosts {
		try("tcp", host+":9000")
	}
	for _, port := range hostilePorts {
		try("tcp", "10.20.0.1:"+port)
	}
	return eachLine("hostile.txt", func(fields []string) error {
		for _, address := range fields[1:] {
			try(fields[0], address)
		}
		return nil
	})
}

func (c *corpus) tryLegitimate() error {
	return eachLine("legitimate.txt", func(fields []string) error {
		c.Legitimate++
		want := slices.Sorted(slices.Values(fields[2:]))
		if reached, err := c.reach(fields[0], fields[1]); !slices.Equal(reached, want) {
			c.fault("false denial: %s %s reached %v instead of %v: %v", fields[0], fields[1], reached, want, err)
		}
		return nil
	})
}

// tryGenerated holds what the dialer does against the naive policy.
func (c *corpus) tryGenerated(n int) {
	random := rand.New(rand.NewPCG(5, 5))
	g := generator{random, c.hosts}
	for range n {
		c.Generated++
		service, host, port := g.target()
		address := host + ":" + port
		if service == "icmp" {
			address = strings.Trim(host, "[]")
		}
		reached, err := c.reach(service, address)
		if len(reached) == 0 {
			if err == nil {
				c.fault("neither: %s %q", service, address)
			}
			continue
		}
		c.Dialled++
		name := strings.ToLower(strings.TrimSuffix(host, "."))
		if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
			name = ""
		}
		for _, at := range reached {
			addr, port, err := splitReached(at)
			if err != nil || !corpusPolicy.permits(service, name, addr, port) {
				c.fault("escape: %s %q reached %s (%v)", service, address, at, err)
			}
		}
	}
}

func splitReached(at string) (netip.Addr, int, error) {
	if addr, err := netip.ParseAddr(at); err == nil {
		return addr, 0, nil
	}
	ap, err := netip.ParseAddrPort(at)
	return ap.Addr(), int(ap.Port()), err
}

// corpusPolicy is policy.yaml for the naive decision.
var corpusPolicy = naivePolicy{
	restricted: true,
	allow: []naiveRule{
		{star: true, port: 9000},
		{suffix: "internal", port: 80},
		{suffix: "internal", port: 443},
		{suffix: "internal", port: 5432},
		{name: "db.corp.test"},
		{prefix: "10.20.0.0/16"},
		{prefix: "10.30.0.0/16", port: 8000, last: 8099},
		{prefix: "2001:db8:10::/48"},
		{prefix: "2001:db8:30::/48", port: 443},
		{suffix: "web.test", port: 443, service: "http"},
		{name: "ping.internal", service: "icmp"},
		{prefix: "10.40.0.0/16", port: 53, service: "udp"},
		{prefix: "127.0.0.1/32", port: 9100, service: "http", special: true},
	},
	deny: []naiveRule{
		{prefix: "10.66.0.0/16"},
		{prefix: "10.20.66.0/24"},
		{prefix: "2001:db8:10:66::/64"},
		{name: "vault.internal"},
		{suffix: "secret.internal"},
		{star: true, port: 25},
		{prefix: "10.20.0.7/32", port: 22},
	},
}
