package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Client is a [Registrar] that asks the [Handler] of a gateway. It speaks HTTPS
// with TLS 1.3 only and follows no redirect, so that a token goes to the gateway
// it is for and nowhere else. Set the fields before the first call and leave
// them alone after; its methods may be called concurrently. It keeps no
// connection open.
type Client struct {
	// Gateway is the base URL, such as "https://gateway.example.com:8443", to
	// which the client adds its own paths. Required.
	Gateway string

	// Pins, if there are any, decide alone whether to trust the gateway when
	// registering: one of the certificates that it presents must have a pinned
	// key, and its own certificate must be that one, or chain to it, and be
	// valid for the host name. Without pins it must chain to Roots; nil means
	// the roots of the system. Renewals go by the roots of the credential.
	Pins  []Pin
	Roots *x509.CertPool

	// Proxy is as in http.Transport, for proxies that are spoken to in plain
	// HTTP or SOCKS5; the tunnel through them is TLS. nil means no proxy.
	// http.ProxyFromEnvironment is a good value.
	Proxy func(*http.Request) (*url.URL, error)

	// DialContext makes the connections, to the gateway or to the proxy: through
	// the tunnel itself, if it opens a stream. TLS is spoken over whatever it
	// returns. nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Timeout bounds one call as a whole; 0 means 30 seconds.
	Timeout time.Duration
}

var _ Registrar = (*Client)(nil)

const (
	defaultTimeout  = 30 * time.Second
	maxRetryAfter   = 3600 // seconds
	maxReplyHeaders = 64 << 10
)

// Register posts the token and the signing request. The error is a
// *[RegistrationError] when the gateway refused, a *[PinError] when it has
// another key, and an *[UnavailableError] when it could not decide; in all cases
// but the first the token is not known to be spent, and the call may be repeated
// with the same token and the same key.
func (c *Client) Register(ctx context.Context, r Registration) (*Credential, error) {
	if r.Token.IsZero() {
		return nil, errors.New("pki: register: no token")
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("pki: register: %w", err)
	}
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.Roots}
	if len(c.Pins) > 0 {
		if config, err = pinnedTLS(slices.Clone(c.Pins), base.Hostname()); err != nil {
			return nil, err
		}
	}
	return c.post(ctx, base.JoinPath(registerPath), config, registerRequest{
		Token:    r.Token.Reveal(),
		Agent:    r.Agent,
		CSR:      r.CSR,
		Hostname: r.Hostname,
		Metadata: r.Metadata,
	})
}

// Renew posts the signing request over a connection that r.TLS authenticates, or
// with a signature by its key when r.Presented has ended. Errors are as those of
// Register.
func (c *Client) Renew(ctx context.Context, r Renewal) (*Credential, error) {
	if r.TLS == nil {
		return nil, errors.New("pki: renew: Renewal.TLS is not set; Identity.Run sets it")
	}
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	target := base.JoinPath(renewPath)
	var refusal error
	if r.Presented != nil && time.Now().After(r.Presented.NotAfter) {
		proof, err := proveExpired(r.TLS, r.CSR)
		if err != nil {
			return nil, fmt.Errorf("pki: renew: %w", err)
		}
		config := r.TLS.Clone()
		config.GetClientCertificate, config.Certificates = nil, nil
		credential, err := c.post(ctx, target, config, renewRequest{CSR: r.CSR, Expired: proof})
		if _, refused := errors.AsType[*RegistrationError](err); !refused {
			return credential, err
		}
		refusal = err
	}
	credential, err := c.post(ctx, target, r.TLS.Clone(), renewRequest{CSR: r.CSR})
	if err != nil && refusal != nil {
		return nil, refusal // only a clock that is ahead would have made it another answer
	}
	return credential, err
}

func (c *Client) base() (*url.URL, error) {
	u, err := url.Parse(c.Gateway)
	if err != nil {
		return nil, errors.New("pki: gateway: not a URL") // the parser's error repeats what may be a password
	}
	if u.Scheme != "https" {
		return nil, fmt.Errorf("pki: gateway: scheme is %q; only https is safe for a token", u.Scheme)
	}
	if u.Path == "" {
		u.Path = "/" // JoinPath makes no absolute path of none
	}
	if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("pki: gateway: %s is not a base URL such as https://gateway.example.com", u.Redacted())
	}
	return u, nil
}

func (c *Client) post(ctx context.Context, target *url.URL, config *tls.Config, request any) (*Credential, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("pki: gateway: %w", err)
	}
	if len(body) > maxRequest {
		return nil, fmt.Errorf("pki: gateway: request of %d bytes; at most %d", len(body), maxRequest)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("pki: gateway: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")

	transport := &http.Transport{
		TLSClientConfig:        config,
		DialContext:            c.DialContext,
		Proxy:                  c.proxy,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxReplyHeaders,
	}
	defer transport.CloseIdleConnections()
	// RoundTrip, not http.Client: redirects and cookies do not exist here.
	asked := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", target.Redacted(), explainClock(err))
	}
	defer resp.Body.Close()
	got := time.Now()
	credential, err := readReply(resp, target.Path)
	if err != nil {
		return nil, err
	}
	credential.ClockSkew = clockSkew(resp.Header.Get("Date"), asked, got)
	return credential, nil
}

func (c *Client) proxy(r *http.Request) (*url.URL, error) {
	if c.Proxy == nil {
		return nil, nil
	}
	u, err := c.Proxy(r)
	// The transport would meet the proxy with the configuration, and so with
	// the pins and the client certificate, that are for the gateway.
	if err == nil && u != nil && u.Scheme == "https" {
		return nil, fmt.Errorf("pki: proxy %s: proxies spoken to in https are not supported; use its http port", u.Redacted())
	}
	return u, err
}

func readReply(resp *http.Response, path string) (*Credential, error) {
	status := resp.StatusCode
	switch {
	case status == http.StatusOK:
	case status == http.StatusUnauthorized:
		return nil, &RegistrationError{Renewal: strings.HasSuffix(path, renewPath)}
	case status == http.StatusTooManyRequests || status >= 500:
		return nil, &UnavailableError{Status: status, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	case status >= 300 && status < 400:
		return nil, fmt.Errorf("pki: gateway redirects to %s (HTTP %d), which is not followed; set the base URL to the gateway itself",
			redirectHost(resp), status)
	default:
		return nil, fmt.Errorf("pki: gateway answers HTTP %d to %s; is the base URL right?", status, path)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, fmt.Errorf("pki: read the gateway's reply: %w", err)
	}
	if len(body) > maxReply {
		return nil, fmt.Errorf("pki: gateway's reply is larger than %d bytes", maxReply)
	}
	credential := new(Credential)
	if err := json.Unmarshal(body, credential); err != nil {
		return nil, fmt.Errorf("pki: gateway's reply is no credential (%w); is the base URL right?", err)
	}
	return credential, nil
}

// redirectHost tells where a redirect leads, without what may repeat the request.
func redirectHost(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return "nowhere"
	}
	return fmt.Sprintf("%.100q", to.Host)
}

// retryAfter reads the header of that name, in seconds (RFC 9110, 10.2.3).
func retryAfter(header string) time.Duration {
	seconds, err := strconv.Atoi(header)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, maxRetryAfter)) * time.Second
}
