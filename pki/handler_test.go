package pki_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func requestBody(t testing.TB, r pki.Registration) []byte {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"token": r.Token.Reveal(), "agent": r.Agent, "csr": r.CSR, "hostname": r.Hostname, "metadata": r.Metadata,
		"added_in_a_later_version": []int{1, 2, 3},
	})
	require.NoError(t, err)
	return body
}

// post hands a request to the handler as a TLS server would.
func post(h http.Handler, path string, body []byte, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}
	r.Header.Set("Content-Type", "application/json")
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEveryRefusalIsTheSame401(t *testing.T) {
	type answer struct {
		status       int
		header, body string
		took         time.Duration
	}
	answers := make(map[answer][]string)
	take := func(cause string, a *pki.Authority, path string, body []byte) {
		synctest.Test(t, func(*testing.T) { // fake time, so that the delay can be compared exactly
			start := time.Now()
			w := post(pki.Handler(a, pki.HandlerConfig{}), path, body)
			got := answer{w.Code, fmt.Sprint(w.Header()), w.Body.String(), time.Since(start)}
			answers[got] = append(answers[got], cause)
		})
	}
	for cause, attempt := range refusals(t) {
		synctest.Test(t, func(t *testing.T) {
			a, log := newAuthority(t)
			r := attempt(t, a)
			time.Sleep(time.Nanosecond) // lets the token that is to expire do so
			start := time.Now()
			w := post(pki.Handler(a, pki.HandlerConfig{}), "/outgate/v1/register", requestBody(t, r))
			got := answer{w.Code, fmt.Sprint(w.Header()), w.Body.String(), time.Since(start)}
			answers[got] = append(answers[got], cause)
			require.Contains(t, log.String(), cause)
		})
	}
	a, _ := newAuthority(t)
	for _, token := range []string{"", "junk", goodID, "x." + goodSecret} {
		take("token "+token, a, "/outgate/v1/register", []byte(`{"token":"`+token+`"}`))
	}
	require.Len(t, answers, 1, answers)
	for got := range answers {
		require.Equal(t, http.StatusUnauthorized, got.status)
		require.JSONEq(t, `{"error":"registration refused"}`, got.body)
		require.Equal(t, 50*time.Millisecond, got.took)
	}
}

func TestHandlerRefusesPlainHTTP(t *testing.T) {
	a, _ := newAuthority(t)
	token := grant(t, a, pki.Grant{})
	body := requestBody(t, pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
	plain := func(r *http.Request) { r.TLS = nil }

	w := post(pki.Handler(a, pki.HandlerConfig{}), "/outgate/v1/register", body, plain)
	require.Equal(t, http.StatusForbidden, w.Code)

	trusting := pki.Handler(a, pki.HandlerConfig{BehindTLSProxy: true})
	require.Equal(t, http.StatusForbidden, post(trusting, "/outgate/v1/renew", body, plain).Code)
	require.Equal(t, http.StatusOK, post(trusting, "/outgate/v1/register", body, plain).Code)
}

func TestHandlerBoundsWhatItReads(t *testing.T) {
	a, _ := newAuthority(t)
	h := pki.Handler(a, pki.HandlerConfig{PerSource: pki.Rate{PerSecond: 1, Burst: 100}})
	padded := func(size int) []byte {
		return []byte(`{"token":"x","pad":"` + strings.Repeat("x", size-len(`{"token":"x","pad":""}`)) + `"}`)
	}
	for name, c := range map[string]struct {
		body   []byte
		change func(*http.Request)
		status int
	}{
		"64 KiB":              {padded(64 << 10), nil, http.StatusUnauthorized},
		"a byte more":         {padded(64<<10 + 1), nil, http.StatusRequestEntityTooLarge},
		"nothing":             {nil, nil, http.StatusBadRequest},
		"no JSON":             {[]byte("token=x"), nil, http.StatusBadRequest},
		"two of them":         {[]byte(`{"token":"x"}{"token":"x"}`), nil, http.StatusBadRequest},
		"another type":        {[]byte(`{"token":["x"]}`), nil, http.StatusBadRequest},
		"deep nesting":        {[]byte(strings.Repeat("[", 60<<10)), nil, http.StatusBadRequest},
		"a form":              {padded(100), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, http.StatusUnsupportedMediaType},
		"JSON with a charset": {padded(100), func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, http.StatusUnauthorized},
		"GET":                 {nil, func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"another path":        {nil, func(r *http.Request) { r.URL.Path = "/outgate/v1/" }, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*http.Request) {}
			}
			w := post(h, "/outgate/v1/register", c.body, c.change)
			require.Equal(t, c.status, w.Code, w.Body)
		})
	}
}

func TestHandlerLimitsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		h := pki.Handler(a, pki.HandlerConfig{
			PerSource: pki.Rate{PerSecond: 1, Burst: 3},
			Global:    pki.Rate{PerSecond: 1, Burst: 7},
		})
		ask := func(from string) *httptest.ResponseRecorder {
			return post(h, "/outgate/v1/register", nil, func(r *http.Request) { r.RemoteAddr = from })
		}
		passed := func(from string) (n int) {
			for range 10 {
				if w := ask(from); w.Code == http.StatusBadRequest {
					n++
				} else {
					require.Equal(t, http.StatusTooManyRequests, w.Code)
					require.Equal(t, "1", w.Header().Get("Retry-After"))
				}
			}
			return n
		}
		require.Equal(t, 3, passed("192.0.2.1:1000"))
		require.Equal(t, 0, passed("192.0.2.1:2000"), "another port is the same source")
		require.Equal(t, 0, passed("[::ffff:192.0.2.1]:1"), "so is IPv4 written as IPv6")
		require.Equal(t, 3, passed("[2001:db8::1]:1"))
		require.Equal(t, 0, passed("[2001:db8::ffff:1]:1"), "a /64 is one source")
		require.Equal(t, 1, passed("[2001:db8:0:1::1]:1"), "all together have a limit")

		time.Sleep(2 * time.Second)
		require.Equal(t, 2, passed("192.0.2.1:1000"))
	})
}

func TestTheLimiterForgetsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		h := pki.Handler(a, pki.HandlerConfig{Global: pki.Rate{PerSecond: 1e9, Burst: 1e9}})
		from := func(i int) int {
			return post(h, "/outgate/v1/register", nil, func(r *http.Request) {
				r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&0xff, i&0xff)
			}).Code
		}
		for i := range 4096 {
			require.Equal(t, http.StatusBadRequest, from(i))
		}
		limited := 0
		for i := range 100 { // these share what one source may do
			if from(5000+i) == http.StatusTooManyRequests {
				limited++
			}
		}
		require.Equal(t, 90, limited)
		time.Sleep(time.Minute)
		for i := range 100 {
			require.Equal(t, http.StatusBadRequest, from(6000+i))
		}
	})
}

func TestARegistrarThatCannotDecideIs503(t *testing.T) {
	var log journal
	h := pki.Handler(failing{}, pki.HandlerConfig{Logger: log.logger()})
	w := post(h, "/outgate/v1/register", requestBody(t, registration(t)))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "10", w.Header().Get("Retry-After"))
	require.NotContains(t, w.Body.String(), "disk")
	require.Contains(t, log.String(), "the disk is on fire")
}

type failing struct{}

func (failing) Register(context.Context, pki.Registration) (*pki.Credential, error) {
	return nil, errors.New("the disk is on fire")
}

func (failing) Renew(context.Context, pki.Renewal) (*pki.Credential, error) {
	return nil, errors.New("the disk is on fire")
}

// The name comes from the certificate of the connection. What the request says,
// and a certificate that nobody has verified, count for nothing.
func TestRenewalGoesByTheVerifiedCertificate(t *testing.T) {
	a, _ := newAuthority(t)
	base := localhost(serve(t, a, pki.HandlerConfig{}))
	edge, core := enroll(t, a, "edge"), enroll(t, a, "core")

	renew := func(config *tls.Config, body any) (int, *pki.Credential) {
		data, err := json.Marshal(body)
		require.NoError(t, err)
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/outgate/v1/renew", bytes.NewReader(data))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		reply, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		c := new(pki.Credential)
		require.NoError(t, json.Unmarshal(reply, c))
		return resp.StatusCode, c
	}
	csr := csrOf(t, newKey(t))
	status, c := renew(edge.ClientTLS(), map[string]any{"csr": csr, "agent": "core", "presented": core.Certificate().Certificate[0]})
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "edge", c.Agent)

	anonymous := edge.ClientTLS()
	anonymous.GetClientCertificate = nil
	status, _ = renew(anonymous, map[string]any{"csr": csr})
	require.Equal(t, http.StatusUnauthorized, status)

	h := pki.Handler(a, pki.HandlerConfig{})
	w := post(h, "/outgate/v1/renew", []byte(`{}`), func(r *http.Request) {
		r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, edge.Certificate().Leaf) // presented, not verified
	})
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.JSONEq(t, `{"error":"renewal refused"}`, w.Body.String())
}

func FuzzHandler(f *testing.F) {
	a, _ := newAuthority(f)
	h := pki.Handler(a, pki.HandlerConfig{
		PerSource: pki.Rate{PerSecond: 1e9, Burst: 1e9}, Global: pki.Rate{PerSecond: 1e9, Burst: 1e9},
	})
	f.Add("register", []byte(`{"token":"`+goodID+`.`+goodSecret+`","csr":"MAA=","metadata":{"a":"b"}}`))
	f.Add("renew", []byte(`{"csr":"MAA="}`))
	f.Add("register", []byte(`{"token":null,"csr":null}`))
	f.Fuzz(func(t *testing.T, route string, body []byte) {
		path := "/outgate/v1/register"
		if route == "renew" {
			path = "/outgate/v1/renew"
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // no waiting for the time of a refusal
		w := post(h, path, body, func(r *http.Request) { *r = *r.WithContext(ctx) })
		if w.Code == http.StatusOK {
			t.Errorf("admitted by %q", body)
		}
	})
}
