package pki_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// clientOf trusts the authority by its pin and reaches the gateway by name.
func clientOf(a *pki.Authority, base string) *pki.Client {
	return &pki.Client{Gateway: localhost(base), Pins: []pki.Pin{pki.PinOf(a.Certificate)}}
}

func TestAgentEnrolsOverHTTPS(t *testing.T) {
	a, _ := newAuthority(t)
	base := serve(t, a, pki.HandlerConfig{})
	for name, client := range map[string]*pki.Client{
		"by pin":             clientOf(a, base),
		"by roots":           {Gateway: localhost(base), Roots: a.Pool()},
		"with a final slash": {Gateway: localhost(base) + "/", Roots: a.Pool()},
	} {
		t.Run(name, func(t *testing.T) {
			token := grant(t, a, pki.Grant{})
			identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), client,
				pki.Registration{Token: token, Hostname: "db-1", Metadata: map[string]string{"os": "linux"}})
			require.NoError(t, err)
			got, err := whoami(t, localhost(base), identity.ClientTLS())
			require.NoError(t, err)
			require.Equal(t, identity.Agent(), got)
			record := agentOf(t, a, identity.Agent())
			require.Equal(t, "db-1", record.Hostname)
			require.Equal(t, map[string]string{"os": "linux"}, record.Metadata)
		})
	}
}

func TestTheSystemsRootsDoNotVouchForAPrivateGateway(t *testing.T) {
	a, _ := newAuthority(t)
	client := &pki.Client{Gateway: localhost(serve(t, a, pki.HandlerConfig{}))}
	_, err := client.Register(t.Context(), registration(t))
	require.ErrorContains(t, err, "unknown authority")
}

func TestTheGatewayMustBeAnHTTPSURL(t *testing.T) {
	for _, gateway := range []string{
		"", "gateway.example.com", "http://gateway.example.com", "ws://gateway.example.com", "wss://gateway.example.com",
		"HTTP://gateway.example.com", "https://", "https://:443", "https://user:hunter2@gateway.example.com", //nolint:gosec // no password
		"https://gateway.example.com?x=1", "https://gateway.example.com#x", "https://gate way", "https:gateway.example.com", "file:///etc",
	} {
		client := &pki.Client{Gateway: gateway, Proxy: func(*http.Request) (*url.URL, error) {
			t.Errorf("%q: went as far as asking for the proxy", gateway)
			return nil, context.Canceled
		}}
		_, err := client.Register(t.Context(), registration(t))
		require.Error(t, err, gateway)
		require.NotContains(t, err.Error(), "hunter2")
		_, err = client.Renew(t.Context(), pki.Renewal{TLS: new(tls.Config)})
		require.Error(t, err, gateway)
	}
}

func TestATokenIsNotSentAfterARedirect(t *testing.T) {
	a, _ := newAuthority(t)
	var leaked atomic.Int32
	thief := serveTLS(t, a, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Add(1) }))
	for _, status := range []int{301, 302, 303, 307, 308} {
		var asked atomic.Int32
		base := serveTLS(t, a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1); r.URL.Path == "/again" {
				leaked.Add(1)
			}
			to := localhost(thief)
			if status == 308 {
				to = "/again" // not even at the same host
			}
			http.Redirect(w, r, to, status)
		}))
		_, err := clientOf(a, base).Register(t.Context(), registration(t))
		require.ErrorContains(t, err, "redirects to")
		require.EqualValues(t, 1, asked.Load())
	}
	require.Zero(t, leaked.Load())
}

func TestTheClientSpeaksTLS13Only(t *testing.T) {
	a, _ := newAuthority(t)
	config, err := a.ServerTLS(tls.VerifyClientCertIfGiven, "localhost")
	require.NoError(t, err)
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	_, err = clientOf(a, serveWith(t, config, http.NotFoundHandler())).Register(t.Context(), registration(t))
	require.ErrorContains(t, err, "protocol version")
}

func TestWhatTheGatewayAnswers(t *testing.T) {
	a, _ := newAuthority(t)
	answer := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if name, value, found := strings.Cut(header, ": "); found {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	register := func(t *testing.T, h http.Handler) error {
		_, err := clientOf(a, serveTLS(t, a, h)).Register(t.Context(), registration(t))
		require.Error(t, err)
		return err
	}
	t.Run("401 is a refusal", func(t *testing.T) {
		requireRefused(t, register(t, answer(401, "", "")))
	})
	t.Run("429 and 5xx are worth another try", func(t *testing.T) {
		for status, c := range map[int]struct {
			header string
			wait   time.Duration
		}{
			429: {"Retry-After: 7", 7 * time.Second},
			500: {"", 0},
			502: {"Retry-After: soon", 0},
			503: {"Retry-After: 999999999999", 0},
			504: {"Retry-After: 86400", time.Hour},
			505: {"Retry-After: -1", 0},
		} {
			var busy *pki.UnavailableError
			require.ErrorAs(t, register(t, answer(status, c.header, "")), &busy)
			require.Equal(t, status, busy.Status)
			if status != 503 {
				require.Equal(t, c.wait, busy.RetryAfter)
			}
			require.LessOrEqual(t, busy.RetryAfter, time.Hour)
		}
	})
	t.Run("404 is another service", func(t *testing.T) {
		require.ErrorContains(t, register(t, answer(404, "", "")), "is the base URL right?")
	})
	t.Run("a page is no credential", func(t *testing.T) {
		require.ErrorContains(t, register(t, answer(200, "", "<html>")), "no credential")
	})
	t.Run("a reply has an end", func(t *testing.T) {
		endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		})
		require.ErrorContains(t, register(t, endless), "larger than")
	})
	t.Run("silence has an end", func(t *testing.T) {
		silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		client := clientOf(a, serveTLS(t, a, silent))
		client.Timeout = 200 * time.Millisecond
		_, err := client.Register(t.Context(), registration(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// A gateway that is hostile, or confused, cannot make an agent hold something
// else than it asked for.
func TestAgentChecksItsCredential(t *testing.T) {
	a, _ := newAuthority(t)
	another, err := a.Register(t.Context(), pki.Registration{
		Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, newKey(t)),
	})
	require.NoError(t, err)
	for name, change := range map[string]func(*pki.Credential){
		"no certificate":      func(c *pki.Credential) { c.Certificates = nil },
		"junk":                func(c *pki.Credential) { c.Certificates = [][]byte{{1}} },
		"another key":         func(c *pki.Credential) { *c = *another },
		"another name":        func(c *pki.Credential) { c.Agent = "core" },
		"no name":             func(c *pki.Credential) { c.Agent = "" },
		"another serial":      func(c *pki.Credential) { c.Serial = "00" },
		"another end":         func(c *pki.Credential) { c.NotAfter = c.NotAfter.Add(time.Hour) },
		"no roots":            func(c *pki.Credential) { c.Roots = nil },
		"a root that is junk": func(c *pki.Credential) { c.Roots = [][]byte{{1}} },
		"nothing at all":      func(c *pki.Credential) { *c = pki.Credential{} },
	} {
		t.Run(name, func(t *testing.T) {
			storage := new(pki.MemoryStorage)
			r := pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), Agent: "edge"}
			_, err := pki.Enroll(t.Context(), storage, tampered{a, change}, r)
			require.Error(t, err)
			_, err = pki.Enroll(t.Context(), storage, a, r) // the token is not lost
			require.NoError(t, err)
		})
	}
}

// tampered changes what a registrar returns.
type tampered struct {
	pki.Registrar
	change func(*pki.Credential)
}

func (r tampered) Register(ctx context.Context, reg pki.Registration) (*pki.Credential, error) {
	c, err := r.Registrar.Register(ctx, reg)
	if err == nil {
		r.change(c)
	}
	return c, err
}

func TestClientGoesThroughAProxy(t *testing.T) {
	a, _ := newAuthority(t)
	base := serve(t, a, pki.HandlerConfig{})
	proxy, connects := connectProxy(t)
	client := clientOf(a, base)
	client.Proxy = http.ProxyURL(proxy)
	identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), client,
		pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
	require.NoError(t, err)
	require.Equal(t, "edge", identity.Agent())
	require.Equal(t, strings.TrimPrefix(localhost(base), "https://"), <-connects)

	client.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: proxy.Host})
	_, err = client.Register(t.Context(), registration(t))
	require.ErrorContains(t, err, "use its http port")
}

// connectProxy serves one CONNECT and tells where to.
func connectProxy(t *testing.T) (*url.URL, <-chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	connects := make(chan string, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		req, err := http.ReadRequest(bufio.NewReader(in))
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		connects <- req.Host
		var d net.Dialer
		out, err := d.DialContext(t.Context(), "tcp", req.Host)
		if err != nil {
			return
		}
		defer out.Close()
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		wg.Go(func() {
			_, _ = io.Copy(out, in)
			out.Close()
		})
		_, _ = io.Copy(in, out)
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	return &url.URL{Scheme: "http", Host: listener.Addr().String()}, connects
}

func TestRenewNeedsAnIdentity(t *testing.T) {
	_, err := (&pki.Client{Gateway: "https://localhost:1"}).Renew(t.Context(), pki.Renewal{})
	require.ErrorContains(t, err, "Identity.Run")
}

func TestRegisterChecksBeforeItSends(t *testing.T) {
	client := &pki.Client{Gateway: "https://localhost:1"}
	for name, change := range map[string]func(*pki.Registration){
		"no token":         func(r *pki.Registration) { r.Token = pki.Token{} },
		"a bad name":       func(r *pki.Registration) { r.Agent = "Edge" },
		"a long hostname":  func(r *pki.Registration) { r.Hostname = strings.Repeat("h", 254) },
		"too much to tell": func(r *pki.Registration) { r.Metadata = map[string]string{"a": strings.Repeat("v", 257)} },
		"no UTF-8":         func(r *pki.Registration) { r.Metadata = map[string]string{"a": "\xff"} },
		"a CSR of 100 KiB": func(r *pki.Registration) { r.CSR = make([]byte, 100<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			r := registration(t)
			change(&r)
			_, err := client.Register(t.Context(), r)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "dial")
		})
	}
}

func TestErrorsDoNotRepeatTheToken(t *testing.T) {
	a, _ := newAuthority(t)
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct{ Token string }
		_ = json.NewDecoder(r.Body).Decode(&req)
		w.Header().Set("Location", "https://localhost/?"+req.Token)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, req.Token)
	})
	_, err := clientOf(a, serveTLS(t, a, echo)).Register(t.Context(), registration(t))
	require.Error(t, err)
	require.NotContains(t, err.Error(), goodSecret)
}
