package policy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HTTP makes HTTP clients that reach what a [Dialer] allows for the service "http", and
// nothing else. Each request, and each hop of its redirects, is parsed by [ParseTarget],
// asked about and dialled anew: no connection is kept, no proxy of the environment is
// used, and there are no cookies but those that the caller sends.
//
// A redirect from https to http is refused. To another origin (scheme, host and port)
// than that of the first request go neither the caller's headers, except for a few that
// say nothing of who asks, nor its client certificates, nor its body, and they do not come
// back on the way home; a redirect that needs the body there, or brings a password of its
// own, is refused.
type HTTP struct {
	Dialer *Dialer // nil denies everything

	// Request says on whose behalf: Subject, Agent and Labels. Target and Addr are
	// not read.
	Request Request

	// TLSClientConfig is as in http.Transport. Nil means the defaults.
	TLSClientConfig *tls.Config

	// MaxRedirects is how many redirects are followed. Zero or less follows none: the
	// caller gets the redirect as its response.
	MaxRedirects int
}

// Client makes a client. It has no timeout; requests have their contexts. In its
// *url.Error is the error of the dialer, or a *[RedirectError].
func (h HTTP) Client() *http.Client {
	bare := &tls.Config{}
	if h.TLSClientConfig != nil {
		bare = h.TLSClientConfig.Clone()
		bare.Certificates, bare.GetClientCertificate = nil, nil
	}
	return &http.Client{
		Transport:     &httpTransport{home: h.transport(h.TLSClientConfig), abroad: h.transport(bare)},
		CheckRedirect: h.checkRedirect,
	}
}

func (h HTTP) transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:           h.dial,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableKeepAlives:     true, // a kept connection would not be asked about
	}
}

func (h HTTP) dial(ctx context.Context, _, address string) (net.Conn, error) {
	t, err := ParseTarget("http", address)
	if err != nil {
		return nil, err
	}
	d := h.Dialer
	if d == nil {
		d = &Dialer{}
	}
	r := h.Request
	r.Target = t
	return d.DialTarget(ctx, r)
}

// httpTransport shows client certificates to the origin of the first request only.
type httpTransport struct{ home, abroad *http.Transport }

func (t *httpTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	for hop := req; hop.Response != nil; {
		hop = hop.Response.Request
		if origin(hop.URL) != origin(req.URL) {
			return t.abroad.RoundTrip(req)
		}
	}
	return t.home.RoundTrip(req)
}

// RedirectError says why a redirect was not followed. What the policy denies is a
// *[Denied] instead.
type RedirectError struct {
	Reason string
}

func (e *RedirectError) Error() string { return "policy: redirect refused: " + e.Reason }

// checkRedirect is an http.Client's CheckRedirect.
func (h HTTP) checkRedirect(req *http.Request, via []*http.Request) error {
	switch last := via[len(via)-1]; {
	case h.MaxRedirects <= 0:
		return http.ErrUseLastResponse
	case len(via) > h.MaxRedirects:
		return &RedirectError{Reason: fmt.Sprintf("there were %d before it, as many as MaxRedirects allows", h.MaxRedirects)}
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return &RedirectError{Reason: "it leads from https to http"}
	}
	if !abroad(req, via) {
		return nil
	}
	switch {
	case req.URL.User != nil:
		return &RedirectError{Reason: "it leads to another origin with a user or password in its URL"}
	case req.Body != nil && req.Body != http.NoBody:
		return &RedirectError{Reason: "it would take the request's body to another origin"}
	}
	for name := range req.Header {
		if !harmless[name] {
			delete(req.Header, name)
		}
	}
	return nil
}

// abroad reports whether a hop of the way, or the next one, is at another origin than
// the first.
func abroad(req *http.Request, via []*http.Request) bool {
	home := origin(via[0].URL)
	for _, hop := range via {
		if origin(hop.URL) != home {
			return true
		}
	}
	return origin(req.URL) != home
}

// harmless are headers that say nothing of who asks and why.
var harmless = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Cache-Control": true, "Range": true, "User-Agent": true,
}

// origin is the scheme, host and port (RFC 6454).
func origin(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	case u.Scheme == "https":
		port = "443"
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
