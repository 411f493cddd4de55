package kubesecret

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	callTimeout = 15 * time.Second // for one attempt
	attempts    = 5
	firstPause  = 100 * time.Millisecond // doubled from attempt to attempt
	maxPause    = 10 * time.Second

	// maxReply is a full Secret in base64, with metadata that others have grown.
	maxReply = 4 << 20
)

// errConflict says that the Secret is another than the one a write is based on.
var errConflict = errors.New("kubesecret: conflict")

// busyError is an answer that another attempt may better.
type busyError struct {
	error
	after time.Duration
}

// call sends one request to the API server, again while it is away or busy: all
// of our requests may arrive twice, since writes name the version they replace.
func (s *Storage) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	base, err := s.base()
	if err != nil {
		return nil, err
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		reply, err := s.once(ctx, method, base+path, body)
		busy, again := errors.AsType[*busyError](err)
		if !again {
			return reply, err
		}
		if attempt == attempts || ctx.Err() != nil {
			return nil, busy.error
		}
		timer := time.NewTimer(min(max(pause, busy.after), maxPause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w; last: %w", context.Cause(ctx), busy.error)
		}
		pause *= 2
	}
}

func (s *Storage) base() (string, error) {
	u, err := url.Parse(s.Server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("kubesecret: Server is not a URL such as https://10.96.0.1:443")
	}
	if s.Namespace == "" || s.Name == "" || s.TokenFile == "" {
		return "", errors.New("kubesecret: Namespace, Name and TokenFile are required")
	}
	return strings.TrimSuffix(s.Server, "/"), nil
}

func (s *Storage) once(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	token, err := readFile(s.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("kubesecret: token: %w", err)
	}
	transport, err := s.transport()
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("kubesecret: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	// RoundTrip, not http.Client: a redirect must not get the token.
	resp, err := transport.RoundTrip(req)
	if err != nil {
		err = fmt.Errorf("kubesecret: %s %s: %w", method, s, err)
		if _, wrong := errors.AsType[*tls.CertificateVerificationError](err); wrong {
			return nil, err
		}
		return nil, &busyError{error: err}
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, &busyError{error: fmt.Errorf("kubesecret: %s %s: read the reply: %w", method, s, err)}
	}
	if len(reply) > maxReply {
		return nil, fmt.Errorf("kubesecret: %s is larger than %d bytes", s, maxReply)
	}
	return reply, s.judge(resp, method, reply)
}

// transport trusts the roots that are on disk now.
func (s *Storage) transport() (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12} // what API servers offer at least
	if s.CAFile != "" {
		text, err := readFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kubesecret: CAFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("kubesecret: CAFile: %s holds no certificate in PEM", s.CAFile)
		}
	}
	return &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, nil
}

// judge turns an answer that is no success into an error.
func (s *Storage) judge(resp *http.Response, method string, reply []byte) error {
	code := resp.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	// The reply is a Status object; its message is for people.
	var status struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(reply, &status)
	err := fmt.Errorf("kubesecret: %s %s: HTTP %d: %.300s", method, s, code, status.Message)
	switch {
	case code == http.StatusNotFound && method == http.MethodPost:
		return fmt.Errorf("%w; is there a namespace %q?", err, s.Namespace)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	case code == http.StatusConflict:
		return fmt.Errorf("%w: %w", errConflict, err)
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w (%w); is the token in %s current, and for this cluster?", err, fs.ErrPermission, s.TokenFile)
	case code == http.StatusForbidden && method == http.MethodPost:
		return fmt.Errorf(`%w (%w); run "kubectl create secret generic %s -n %s", or allow the service account to create Secrets`,
			err, fs.ErrPermission, s.Name, s.Namespace)
	case code == http.StatusForbidden:
		return fmt.Errorf(`%w (%w); allow the service account the verbs get and update on this Secret`, err, fs.ErrPermission)
	case code == http.StatusTooManyRequests || code >= 500:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &busyError{error: err, after: time.Duration(max(0, min(seconds, 60))) * time.Second}
	}
	return err
}
