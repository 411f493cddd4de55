package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// client asks the running gateway.
type client struct {
	http  http.Client
	paths *paths
}

func newClient(p *paths) *client {
	return &client{paths: p, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket())
		},
		DisableKeepAlives: true,
	}}}
}

// call sends in, if it is not nil, and reads the answer into out.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("the gateway's answer: %w", err)
	}
	return nil
}

// open sends in and returns the body of a good answer.
func (c *client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var request bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&request).Encode(in); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, &request)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf(`no gateway runs with the socket %s; start one with "gateway serve", or name its directory with --state`, c.paths.socket())
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("only the user that runs the gateway may use %s: %w", c.paths.socket(), fs.ErrPermission)
	case err != nil:
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("the gateway answers %s: %w", resp.Status, err)
	}
	return nil, errors.New(strings.TrimSpace(string(text)))
}
