package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/outgate/outgate/pki"
)

// identity loads the agent's identity, or enrols. It tries again for as long as
// ctx lives when no gateway can be reached.
func identity(ctx context.Context, c *config, storage pki.Storage, registrar pki.Registrar, in io.Reader, log *slog.Logger) (*pki.Identity, error) {
	token, err := readToken(ctx, c, storage, in)
	if err != nil {
		return nil, err
	}
	hostname, _ := os.Hostname() // for people only
	request := pki.Registration{Token: token, Agent: c.Name, Hostname: hostname}
	for delay := time.Second; ; delay = min(2*delay, 30*time.Second) {
		id, err := pki.Enroll(ctx, storage, registrar, request)
		if err == nil {
			return id, nil
		}
		if _, ok := errors.AsType[*pki.RegistrationError](err); ok {
			return nil, fmt.Errorf(`token %s: %w; get a new one with "gateway token create"`, token.ID(), err)
		}
		if !temporary(err) {
			return nil, err
		}
		log.Warn("not enrolled yet", "error", err, "retry_in", delay)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("stopped before enrolment: %w", err)
		}
	}
}

// temporary reports whether time can mend err: the gateway is not there yet, or
// busy. A gateway that is not the right one does not become it.
func temporary(err error) bool {
	var (
		pin     *pki.PinError
		wrong   *tls.CertificateVerificationError
		network interface{ Timeout() bool } // net.Error and its like
		busy    *pki.UnavailableError
	)
	if errors.As(err, &pin) || errors.As(err, &wrong) {
		return false
	}
	return errors.As(err, &network) || errors.As(err, &busy)
}

// readToken reads the token if there is one. With a valid identity in storage
// none is needed: the file may be gone, and standard input is not waited for.
func readToken(ctx context.Context, c *config, storage pki.Storage, in io.Reader) (pki.Token, error) {
	known := false
	stored, err := pki.Load(ctx, storage)
	switch {
	case err == nil:
		known = time.Now().Before(stored.Status().NotAfter)
	case !errors.Is(err, fs.ErrNotExist):
		return pki.Token{}, err
	}
	var text string
	switch {
	case c.TokenFile == stdin && !known:
		text, err = bufio.NewReader(io.LimitReader(in, 1<<10)).ReadString('\n')
		if err == io.EOF && text != "" {
			err = nil
		}
		if err != nil {
			return pki.Token{}, fmt.Errorf("token from standard input: %w", err)
		}
	case c.TokenFile == stdin:
	case c.TokenFile != "":
		data, err := os.ReadFile(c.TokenFile)
		if err != nil && !(known && errors.Is(err, fs.ErrNotExist)) {
			return pki.Token{}, fmt.Errorf(`token_file: %w; get a token with "gateway token create"`, err)
		}
		text = string(data)
	case !known:
		return pki.Token{}, errors.New(`this agent is not enrolled yet: get a token with "gateway token create" and name its file as token_file`)
	}
	if strings.TrimSpace(text) == "" && known {
		return pki.Token{}, nil
	}
	token, err := pki.ParseToken(text)
	if err != nil {
		return pki.Token{}, fmt.Errorf("token_file %s: %w", c.TokenFile, err)
	}
	return token, nil
}

// gateways is a registrar that asks one gateway after the other.
type gateways []*pki.Client

func (c *config) registrar() gateways {
	var all gateways
	for _, url := range c.Gateways {
		all = append(all, &pki.Client{Gateway: url, Pins: c.Pins, Roots: c.roots, Proxy: http.ProxyFromEnvironment})
	}
	return all
}

// Register asks until one gateway has decided.
func (g gateways) Register(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
	return g.ask(func(c *pki.Client) (*pki.Credential, error) { return c.Register(ctx, r) })
}

// Renew asks until one gateway has decided.
func (g gateways) Renew(ctx context.Context, r pki.Renewal) (*pki.Credential, error) {
	return g.ask(func(c *pki.Client) (*pki.Credential, error) { return c.Renew(ctx, r) })
}

func (g gateways) ask(f func(*pki.Client) (*pki.Credential, error)) (*pki.Credential, error) {
	var failures []error
	for _, client := range g {
		credential, err := f(client)
		if err == nil {
			return credential, nil
		}
		failures = append(failures, err)
		if refused := (*pki.RegistrationError)(nil); errors.As(err, &refused) {
			break
		}
	}
	return nil, errors.Join(failures...)
}
