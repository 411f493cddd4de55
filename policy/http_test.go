package policy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// chain is a way through redirects. In a hop {a} is the origin that is asked first, {b}
// and {c} are others that the policy allows, {x} is a listener that it does not, {s} and
// {t} are TLS origins; an origin is followed by a path. "next" is the path of the next hop.
type chain struct {
	name   string
	hops   []string // of which each is the Location of the one before
	start  string   // {a} if empty
	body   bool     // the first request is a PUT with a secret body
	status int      // of the redirects; 302 if 0
	most   int      // MaxRedirects; 5 if 0
	want   string   // of the response or of the error
}

const refusedByPolicy = "denied"

var chains = []chain{
	{name: "no redirect", want: "end"},
	{name: "to another path", hops: []string{"/next"}, want: "end"},
	{name: "absolute, same origin", hops: []string{"{a}/next"}, want: "end"},
	{name: "to another origin", hops: []string{"{b}/next"}, want: "end"},
	{name: "to another host on the same port", hops: []string{"{c}/next"}, want: "end"},
	{name: "there and back", hops: []string{"{b}/next", "{a}/next"}, want: "end"},
	{name: "over two others", hops: []string{"{b}/next", "{c}/next"}, want: "end"},
	{name: "five hops", hops: []string{"/next", "/next", "/next", "/next", "/next"}, want: "end"},
	{name: "six hops", hops: []string{"/next", "/next", "/next", "/next", "/next", "/next"}, want: "5 before it, as many as MaxRedirects allows"},
	{name: "without end", hops: slices.Repeat([]string{"{b}/next", "{a}/next"}, 10), want: "5 before it, as many as MaxRedirects allows"},
	{name: "not followed", hops: []string{"{b}/next"}, most: -1, want: "302"},
	{name: "permanent", hops: []string{"{b}/next"}, status: 301, want: "end"},
	{name: "see other", hops: []string{"{b}/next"}, status: 303, want: "end"},
	{name: "308 to another origin", hops: []string{"{b}/next"}, status: 308, want: "end"},
	{name: "without a scheme", hops: []string{"//b.internal:{bport}/next"}, want: "end"},
	{name: "trailing dot", hops: []string{"http://b.internal.:{bport}/next"}, want: "end"},
	{name: "upper case", hops: []string{"http://B.Internal:{bport}/next"}, want: "end"},
	{name: "body to the same origin", hops: []string{"/next"}, body: true, status: 307, want: "end"},
	{name: "body to another origin, 307", hops: []string{"{b}/next"}, body: true, status: 307, want: "body to another origin"},
	{name: "body to another origin, 308", hops: []string{"/next", "{b}/next"}, body: true, status: 308, want: "body to another origin"},
	{name: "body dropped by 302", hops: []string{"{b}/next"}, body: true, want: "end"},
	{name: "a denied port", hops: []string{"{x}/next"}, want: refusedByPolicy},
	{name: "a denied port after a good hop", hops: []string{"{b}/next", "{x}/next"}, want: refusedByPolicy},
	{name: "a denied name", hops: []string{"http://vault.internal:{aport}/next"}, want: refusedByPolicy},
	{name: "metadata", hops: []string{"http://169.254.169.254/latest/meta-data/"}, want: refusedByPolicy},
	{name: "metadata, mapped", hops: []string{"http://[::ffff:169.254.169.254]/"}, want: refusedByPolicy},
	{name: "metadata by name", hops: []string{"http://metadata.internal:{aport}/"}, want: refusedByPolicy},
	{name: "loopback", hops: []string{"http://127.0.0.2:{aport}/next"}, want: refusedByPolicy},
	{name: "loopback, IPv6", hops: []string{"http://[::1]:{aport}/next"}, want: refusedByPolicy},
	{name: "loopback, short", hops: []string{"http://127.1:{aport}/next"}, want: "ends in a number"},
	{name: "loopback, decimal", hops: []string{"http://2130706433:{aport}/next"}, want: "ends in a number"},
	{name: "loopback, hexadecimal", hops: []string{"http://0x7f.1:{aport}/next"}, want: "ends in a number"},
	{name: "loopback, fullwidth", hops: []string{"http://１２７.0.0.2:{aport}/next"}, want: refusedByPolicy},
	{name: "unspecified", hops: []string{"http://0.0.0.0:{xport}/next"}, want: refusedByPolicy},
	{name: "NAT64", hops: []string{"http://[64:ff9b::7f00:1]:{xport}/next"}, want: refusedByPolicy},
	{name: "a zone", hops: []string{"http://[fe80::1%25lo]:{xport}/next"}, want: "zone"},
	{name: "a padded port", hops: []string{"http://b.internal:0{bport}/next"}, want: "the port is not a number"},
	{name: "a password for another origin", hops: []string{"http://root:secret@b.internal:{bport}/next"}, want: "user or password"},
	{name: "a host in the user", hops: []string{"http://b.internal:{bport}@127.0.0.2:{xport}/next"}, want: "user or password"},
	{name: "a file", hops: []string{"file:///etc/passwd"}, want: "unsupported protocol scheme"},
	{name: "another protocol", hops: []string{"gopher://b.internal:{bport}/next"}, want: "unsupported protocol scheme"},
	{name: "not a URL", hops: []string{"http://[::1/"}, want: "failed to parse Location"},
	{name: "up to TLS", hops: []string{"{s}/next"}, want: "end"},
	{name: "TLS to itself", start: "{s}", hops: []string{"/next"}, want: "end"},
	{name: "TLS to another", start: "{s}", hops: []string{"{t}/next"}, want: "end"},
	{name: "TLS to another and back", start: "{s}", hops: []string{"{t}/next", "{s}/next"}, want: "end"},
	{name: "down from TLS", start: "{s}", hops: []string{"{a}/next"}, want: "https to http"},
	{name: "down from TLS, same host", start: "{s}", hops: []string{"/next", "http://localhost:{sport}/next"}, want: "https to http"},
}

// credentials are what a request brings beside harmless headers.
var credentials = map[string]string{
	"Authorization": "Bearer secret", "Cookie": "session=secret", "X-Api-Key": "secret", "Proxy-Authorization": "Basic secret", "X-Vault-Token": "secret", "Www-Authenticate": "secret",
}

// origins serve the chains.
type origins struct {
	mu     sync.Mutex
	way    chain
	names  *strings.Replacer
	leaks  []string       // credentials that reached another origin than the first, or came back from there
	homely map[string]int // credentials that reached the first
	left   bool           // another origin was asked
	hops   int
}

func (o *origins) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hops++
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	start, err := url.Parse(o.names.Replace(o.way.start))
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(req.Body)
	home := scheme == start.Scheme && req.Host == start.Host
	o.left = o.left || !home
	note := func(what string) {
		if !o.left {
			o.homely[what]++
		} else {
			o.leaks = append(o.leaks, req.Host+" got "+what)
		}
	}
	for name, values := range req.Header {
		if strings.Contains(strings.Join(values, " "), "secret") {
			note(name)
		}
	}
	if len(body) > 0 {
		note("body")
	}
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		note("certificate")
	}
	i, err := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/"))
	if err != nil || i >= len(o.way.hops) {
		_, _ = io.WriteString(w, "end")
		return
	}
	status := o.way.status
	if status == 0 {
		status = http.StatusFound
	}
	location := strings.ReplaceAll(o.names.Replace(o.way.hops[i]), "/next", "/"+strconv.Itoa(i+1)+"?token=secret")
	w.Header()["Location"] = []string{location}
	w.WriteHeader(status)
}

func (o *origins) set(c chain) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.way, o.leaks, o.homely, o.left, o.hops = c, nil, map[string]int{}, false, 0
}

func TestNoRedirectLeavesThePolicyOrTakesCredentialsAlong(t *testing.T) {
	o := &origins{}
	serve := func(config *tls.Config) (port string) {
		s := httptest.NewUnstartedServer(o)
		if config != nil {
			s.TLS = config
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return portOf(t, s.Listener.Addr())
	}
	ca := testca.New(t)
	optional := ca.Gateway()
	optional.ClientAuth = tls.VerifyClientCertIfGiven
	a, b, s, u := serve(nil), serve(nil), serve(optional.Clone()), serve(optional.Clone())
	forbidden, reached := listen(t, "tcp", "127.0.0.1:0")
	x := portOf(t, forbidden)
	_, reached2 := listen(t, "tcp", "127.0.0.2:"+a)
	o.names = strings.NewReplacer(
		"{a}", "http://a.internal:"+a, "{b}", "http://b.internal:"+b, "{c}", "http://c.internal:"+a, "{x}", "http://b.internal:"+x,
		"{s}", "https://localhost:"+s, "{t}", "https://localhost:"+u, "{aport}", a, "{bport}", b, "{xport}", x, "{sport}", s,
	)
	document := "enable_access_restrictions: true\ndenied_endpoints: [vault.internal]\nallowed_endpoints:\n  - metadata.internal\n"
	inside := map[string]bool{}
	for _, port := range []string{a, b, s, u} {
		document += "  - {endpoint: '127.0.0.1:" + port + "', service: http, allow_special: true}\n"
		inside["tcp4 127.0.0.1:"+port] = true
	}
	saw := &sawControl{}
	dialer := &policy.Dialer{Policy: rules(t, document), Control: saw.control, Resolver: resolverFunc(func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host == "metadata.internal" {
			return addrs("169.254.169.254"), nil
		}
		return addrs("127.0.0.1"), nil
	})}
	dials, hops := 0, 0
	for _, c := range chains {
		if c.start == "" {
			c.start = "{a}"
		}
		if c.most == 0 {
			c.most = 5
		}
		o.set(c)
		client := policy.HTTP{Dialer: dialer, MaxRedirects: c.most, TLSClientConfig: ca.Agent("agent-1")}.Client()
		method, body := http.MethodGet, io.Reader(nil)
		if c.body {
			method, body = http.MethodPut, strings.NewReader("a secret body")
		}
		req, err := http.NewRequestWithContext(t.Context(), method, o.names.Replace(c.start)+"/0?token=secret", body)
		require.NoError(t, err)
		for name, value := range credentials {
			req.Header.Set(name, value)
		}
		got := ""
		resp, err := client.Do(req)
		switch {
		case err != nil:
			got = err.Error()
			var failed *url.Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, c.want == refusedByPolicy, errors.Is(err, transport.Denied), "%s: %v", c.name, err)
			var refused *policy.RedirectError
			require.Equal(t, strings.Contains(got, "redirect refused"), errors.As(err, &refused), c.name)
		case resp.StatusCode == http.StatusOK:
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			got = string(text)
		default:
			got = resp.Status
		}
		if resp != nil {
			require.NoError(t, resp.Body.Close())
		}
		require.Contains(t, got, c.want, c.name)
		o.mu.Lock()
		require.Empty(t, o.leaks, c.name)
		for name := range credentials {
			require.NotZero(t, o.homely[name], "%s: the first origin gets what is for it", c.name)
		}
		require.Equal(t, c.body, o.homely["body"] > 0, c.name)
		require.Equal(t, c.start == "{s}", o.homely["certificate"] > 0, c.name)
		hops += o.hops
		o.mu.Unlock()
		for _, dialled := range saw.list()[dials:] {
			require.True(t, inside[dialled], "%s: dialled %s", c.name, dialled)
		}
		dials = len(saw.list())
	}
	require.Zero(t, reached()+reached2(), "a listener outside the policy was reached")
	require.Equal(t, hops, dials, "each hop is dialled, and asked about, anew")
	require.GreaterOrEqual(t, len(chains), 40)
	t.Logf("%d chains, %d dials", len(chains), dials)
}

func TestAnHTTPClientWithoutADialerReachesNothing(t *testing.T) {
	at, reached := listen(t, "tcp", "127.0.0.1:0")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.String(), nil)
	require.NoError(t, err)
	resp, err := policy.HTTP{}.Client().Do(req)
	require.ErrorIs(t, err, transport.Denied)
	require.Nil(t, resp)
	require.Zero(t, reached())
}

func TestAnHTTPClientAsksOnBehalfOfItsSubject(t *testing.T) {
	var asked []policy.Request
	d := &policy.Dialer{Policy: policy.Func(func(_ context.Context, r policy.Request) error {
		asked = append(asked, r)
		return &policy.Denied{Target: r.Target, Reason: "no"}
	})}
	who := policy.Request{Subject: "alice", Agent: "a1", Labels: map[string]string{"k": "v"}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://Web.internal/", nil)
	require.NoError(t, err)
	resp, err := policy.HTTP{Dialer: d, Request: who}.Client().Do(req)
	require.ErrorIs(t, err, transport.Denied)
	require.Nil(t, resp)
	who.Target = target(t, "http", "web.internal:80")
	require.Equal(t, []policy.Request{who}, asked)
}

func ExampleHTTP() {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
	}))
	defer web.Close()
	host, port, _ := net.SplitHostPort(web.Listener.Addr().String())
	rules, err := policy.Parse(strings.NewReader(`{"enable_access_restrictions": false, "allowed_endpoints": [{"endpoint": "` + host + `", "allow_special": true}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	client := policy.HTTP{Dialer: &policy.Dialer{Policy: rules}, MaxRedirects: 5}.Client()
	_, err = client.Get("http://" + net.JoinHostPort(host, port))
	var denied *policy.Denied
	fmt.Println(errors.As(err, &denied), denied.Reason)
	// Output: true the address is special (metadata): only a rule for exactly this address with allow_special opens it
}
