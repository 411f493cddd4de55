package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/tunnel"
)

// tokens mints a token for the daemon that the path names.
func tokens(authority *pki.Authority) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := authority.Grant(r.Context(), pki.Grant{Agent: r.PathValue("name")})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, token.Reveal())
	})
}

// pool connects to daemons. It keeps connections by host, so the host is the
// daemon. It shares them among callers: the subject is all of them, not one.
func pool(gateway *tunnel.Gateway) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		name, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return gateway.Dialer(name, "operator")(ctx, "example.com/admin", "")
	}}
}

// adminPages passes requests on to the admin pages of the daemon that the path
// names.
func adminPages(daemons *http.Transport) http.Handler {
	return &httputil.ReverseProxy{
		Transport: daemons,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = &url.URL{
				Scheme:   "http",
				Host:     r.In.PathValue("name"),
				Path:     "/" + r.In.PathValue("page"),
				RawQuery: r.Out.URL.RawQuery,
			}
			r.Out.Header.Del("Authorization") // it is this server's
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			status := http.StatusBadGateway
			if errors.Is(err, tunnel.ErrNotConnected) {
				status = http.StatusServiceUnavailable
			}
			http.Error(w, err.Error(), status)
		},
	}
}
