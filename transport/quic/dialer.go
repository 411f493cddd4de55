package quic

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

var _ transport.Dialer = (*Dialer)(nil)

// Dialer connects to gateways. It keeps nothing between calls of Dial and needs
// no Close: each connection has its own UDP socket, which ends with it. Its
// fields must not change after the first Dial. Dial may be called concurrently.
type Dialer struct {
	// TLSClientConfig holds the agent's certificate, in Certificates or
	// GetClientCertificate, and in RootCAs who may vouch for the gateway; nil
	// RootCAs are those of the system. ServerName is taken from the URL unless set
	// here. Versions, NextProtos and the session cache are this package's: TLS 1.3,
	// "outgate/1" and none. Required; it is not modified.
	TLSClientConfig *tls.Config

	// GetTLSClientConfig, if it is set, is asked at each Dial instead of
	// TLSClientConfig, so that roots which have changed meanwhile are those that
	// count. pki.Identity.ClientTLS is one.
	GetTLSClientConfig func() *tls.Config

	// HandshakeTimeout bounds one Dial, in addition to its ctx. Zero means 10 s.
	HandshakeTimeout time.Duration

	// Config limits each connection.
	Config Config

	// ListenPacket opens the socket of a connection. The network is "udp4" or
	// "udp6", the address is a wildcard with port zero. The Dialer owns what it
	// returns, and is at its fastest with a *net.UDPConn. Nil means
	// net.ListenConfig.ListenPacket.
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
}

// String names the transport, for people and in the status of an agent.
func (d *Dialer) String() string { return "quic" }

// Dial connects to the gateway at a URL https://host:port or quic://host:port;
// the port is a UDP port and 443 if left out. A path is ignored, so the URL can
// be one that other transports use, too.
//
// The addresses of the host are tried one after the other. Dial returns after
// the gateway has verified the agent's certificate. It fails with a *[DialError]
// unless the URL or the configuration is at fault.
func (d *Dialer) Dial(ctx context.Context, gateway string) (transport.Mux, error) {
	host, port, err := parseGateway(gateway)
	if err != nil {
		return nil, err
	}
	own := d.TLSClientConfig
	if d.GetTLSClientConfig != nil {
		own = d.GetTLSClientConfig()
	}
	tlsConfig, err := clientTLS(own, host)
	if err != nil {
		return nil, err
	}
	if d.HandshakeTimeout < 0 {
		return nil, fmt.Errorf("quic: Dialer.HandshakeTimeout is %v; leave it zero for %v", d.HandshakeTimeout, defaultDialTimeout)
	}
	timeout := cmp.Or(d.HandshakeTimeout, defaultDialTimeout)
	config, err := d.Config.quic(timeout)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m, err := d.dialHost(bounded, host, port, tlsConfig, config)
	if err != nil {
		return nil, dialError(ctx, gateway, err)
	}
	return m, nil
}

// dialHost tries the addresses of host in turn. Each gets an equal share of the
// time that is left.
func (d *Dialer) dialHost(ctx context.Context, host string, port uint16, tlsConfig *tls.Config, config *quic.Config) (*mux, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var first error // it is the preferred address's, and the most telling
	for i, ip := range ips {
		share := ctx
		if deadline, ok := ctx.Deadline(); ok && i < len(ips)-1 {
			var cancel context.CancelFunc
			share, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(ips)-i))
			defer cancel()
		}
		m, err := d.dialAddr(share, netip.AddrPortFrom(ip.Unmap(), port), tlsConfig, config)
		if err == nil {
			return m, nil
		}
		first = cmp.Or(first, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

func (d *Dialer) dialAddr(ctx context.Context, addr netip.AddrPort, tlsConfig *tls.Config, config *quic.Config) (*mux, error) {
	listen := d.ListenPacket
	if listen == nil {
		listen = new(net.ListenConfig).ListenPacket
	}
	network, wildcard := "udp4", "0.0.0.0:0"
	if addr.Addr().Is6() {
		network, wildcard = "udp6", "[::]:0"
	}
	socket, err := listen(ctx, network, wildcard)
	if err != nil {
		return nil, err
	}
	e := newEndpoint(socket)
	conn, err := e.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), tlsConfig, config)
	if err != nil {
		e.release()
		if refused := e.refused.Load(); refused != nil {
			err = *refused
		}
		return nil, err
	}
	m, err := admitted(ctx, conn, e, config)
	if err != nil {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(transport.Canceled), "") // never fails
		e.release()
		return nil, err
	}
	return m, nil
}

// admitted waits until the gateway says that it took the connection.
func admitted(ctx context.Context, conn *quic.Conn, e *endpoint, config *quic.Config) (*mux, error) {
	control, err := conn.OpenUniStream()
	if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
		return nil, protocolError("it takes no control stream")
	}
	if err != nil {
		return nil, err
	}
	peer, err := conn.AcceptUniStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = peer.SetReadDeadline(time.Unix(1, 0)) // never fails
	})
	kind, err := readType(peer)
	switch {
	case !stop():
		return nil, context.Cause(ctx)
	case isStreamError(err):
		return nil, protocolError("it reset its control stream")
	case err != nil:
		return nil, err
	case kind != messageReady:
		return nil, protocolError("unknown message on the control stream")
	}
	m := newMux(conn, e, control, config)
	go m.run(peer)
	return m, nil
}

// parseGateway returns the host and the UDP port of a gateway's base URL.
func parseGateway(gateway string) (host string, port uint16, err error) {
	u, err := url.Parse(gateway)
	if err != nil {
		return "", 0, fmt.Errorf("quic: gateway URL: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "quic" {
		return "", 0, fmt.Errorf("quic: gateway URL %q: scheme %q; use https://host:port", u.Redacted(), u.Scheme)
	}
	if u.User != nil {
		return "", 0, fmt.Errorf("quic: gateway URL %q holds credentials; remove them, the agent's certificate is its identity", u.Redacted())
	}
	if u.Hostname() == "" {
		return "", 0, fmt.Errorf("quic: gateway URL %q has no host; use https://host:port", u.Redacted())
	}
	if u.Port() == "" {
		return u.Hostname(), 443, nil
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("quic: gateway URL %q: port %q is not in 1..65535", u.Redacted(), u.Port())
	}
	return u.Hostname(), uint16(n), nil
}
