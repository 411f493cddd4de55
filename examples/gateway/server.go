package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

const drainTime = 10 * time.Second

// server is a gateway with all its sockets open.
type server struct {
	url       string
	pin       pki.Pin
	authority *pki.Authority
	tunnel    *tunnel.Gateway
	log       *slog.Logger

	store   *pki.FileStore
	web     *websocket.Listener
	https   net.Listener
	admin   net.Listener
	agents  []transport.Listener
	handler http.Handler // of https
	tls     *tls.Config  // of https
}

// newServer opens the state directory and the sockets. Whoever it returns to
// calls run.
func newServer(ctx context.Context, o options, log *slog.Logger) (_ *server, err error) {
	s := &server{log: log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.openState(ctx, o); err != nil {
		return nil, err
	}
	// Who is revoked loses the connections that he has.
	follower := &pki.Follower{Store: s.store, Logger: log}
	s.authority.Follower = follower
	s.tunnel = &tunnel.Gateway{
		Identify: s.authority.Identify,
		Verify:   follower.Check,
		Software: "outgate-gateway/" + version(),
		Logger:   log,
	}
	follower.Changed = s.tunnel.Reverify
	if s.tls, err = s.authority.ServerTLS(tls.VerifyClientCertIfGiven, o.names...); err != nil {
		return nil, err
	}
	if s.https, err = net.Listen("tcp", o.listen); err != nil {
		return nil, fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	_, port, err := net.SplitHostPort(s.https.Addr().String())
	if err != nil {
		return nil, err
	}
	s.url = "https://" + net.JoinHostPort(o.names[0], port)

	s.web = websocket.NewListener(websocket.Config{Logger: log})
	s.agents = append(s.agents, s.web)
	routes := http.NewServeMux()
	routes.Handle("/outgate/v1/", pki.Handler(s.authority, pki.HandlerConfig{Logger: log}))
	routes.Handle(websocket.Path, s.web)
	s.handler = routes
	if o.quic {
		config, err := s.authority.ServerTLS(tls.RequireAndVerifyClientCert, o.names...)
		if err != nil {
			return nil, err
		}
		udp, err := quic.Listen(s.https.Addr().String(), config, quic.ListenConfig{Logger: log})
		if err != nil {
			return nil, fmt.Errorf("--quic: %w", err)
		}
		s.agents = append(s.agents, udp)
	}
	s.admin, err = listenUnix(o.socket())
	return s, err
}

// openState opens what survives a restart, and makes it at the first start. The
// store's lock keeps a second gateway out.
func (s *server) openState(ctx context.Context, o options) error {
	if err := os.Mkdir(o.state, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("--state: %w", err)
	}
	store, err := pki.OpenFileStore(filepath.Join(o.state, "registry"))
	if err != nil {
		return fmt.Errorf("--state %s: %w", o.state, err)
	}
	s.store = store
	signer, cert, err := pki.LoadOrCreateCA(ctx, filepath.Join(o.state, "ca"), o.names[0])
	if err != nil {
		return fmt.Errorf("--state %s: %w", o.state, err)
	}
	s.authority = &pki.Authority{Signer: signer, Certificate: cert, Store: store, Logger: s.log}
	s.pin = pki.PinOf(cert)
	return nil
}

// listenUnix listens on a socket that only this user may open.
func listenUnix(path string) (net.Listener, error) {
	// A socket that a killed gateway left behind is in the way. A gateway that
	// runs holds the store's lock, so this is not its socket.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("--admin: %w", err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w (the path of a unix socket has at most 107 bytes)", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// run serves until ctx ends, which drains, or until something fails. It closes
// everything.
func (s *server) run(ctx context.Context) error {
	defer s.close()
	life, end := context.WithCancelCause(context.WithoutCancel(ctx)) // of the listeners
	defer end(nil)
	outlasting, endRest := context.WithCancel(context.WithoutCancel(ctx)) // outlives them by the drain
	defer endRest()
	errorLog := slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	https := &http.Server{Handler: s.handler, TLSConfig: s.tls, ErrorLog: errorLog}
	admin := &http.Server{
		Handler:           newAdmin(s),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          errorLog,
		BaseContext:       func(net.Listener) context.Context { return outlasting },
	}
	guarded := s.web.Guard(https, s.https)
	var serving sync.WaitGroup
	start := func(what string, serve func() error) {
		serving.Go(func() { end(fmt.Errorf("%s: %w", what, serve())) })
	}
	start("https", func() error { return https.ServeTLS(guarded, "", "") })
	serving.Go(func() { _ = s.authority.Follower.Run(outlasting) }) // ends with it
	start("admin", func() error { return admin.Serve(s.admin) })
	for _, ln := range s.agents {
		start("tunnel", func() error { return s.tunnel.Serve(life, ln) })
	}

	select {
	case <-ctx.Done():
		s.log.Info("stopping", "within", drainTime)
	case <-life.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := s.tunnel.Shutdown(drain); err != nil {
		s.log.Warn("streams were cut", "error", err)
	}
	failure := context.Cause(life)
	if ctx.Err() != nil {
		failure = nil
	}
	endRest()
	_ = https.Close()
	_ = admin.Close()
	serving.Wait()
	return failure
}

// close closes what is open; run may have closed some of it.
func (s *server) close() {
	for _, ln := range s.agents {
		_ = ln.Close()
	}
	for _, ln := range []net.Listener{s.https, s.admin} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}
