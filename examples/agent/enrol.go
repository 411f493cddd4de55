package main

import (
	"bufio"
	"context"
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

// identity loads the agent's identity, or enrols.
func identity(ctx context.Context, c *config, storage pki.Storage, registrar pki.Registrar, in io.Reader, log *slog.Logger) (*pki.Identity, error) {
	token, err := readToken(ctx, c, storage, in)
	if err != nil {
		return nil, err
	}
	hostname, _ := os.Hostname() // for people only
	enroller := &pki.Enroller{Storage: storage, Registrar: registrar, Logger: log}
	id, err := enroller.Enroll(ctx, pki.Registration{Token: token, Agent: c.Name, Hostname: hostname})
	if _, ok := errors.AsType[*pki.RegistrationError](err); ok {
		return nil, fmt.Errorf(`token %s: %w; get a new one with "gateway token create"`, token.ID(), err)
	}
	return id, err
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

// registrar asks one gateway after the other.
func (c *config) registrar() pki.Failover {
	var all pki.Failover
	for _, url := range c.Gateways {
		all = append(all, &pki.Client{Gateway: url, Pins: c.Pins, Roots: c.roots, Proxy: http.ProxyFromEnvironment})
	}
	return all
}
