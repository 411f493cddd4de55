package arch

import (
	"go/ast"
	"strings"
)

// roads are the names that lead to a network, or to a resolver, and past the policy.
// A name that ends in a star stands for all that begin so.
var roads = []string{
	"net.Dial*", "net.Listen*", "net.Lookup*", "net.Resolve*", "net.DefaultResolver", "net.File*",
	"crypto/tls.Dial*", "crypto/tls.Listen",
	"net/http.Client", "net/http.Transport", "net/http.DefaultClient", "net/http.DefaultTransport", "net/http.Get", "net/http.Head", "net/http.Post*", "net/http.ProxyFromEnvironment",
	"net/http/httputil.ReverseProxy", "net/http/httputil.NewSingleHostReverseProxy",
	"net/smtp.Dial", "net/smtp.SendMail", "net/rpc.Dial*", "net/rpc/jsonrpc.Dial",
	"syscall.Socket*", "syscall.Connect*", "syscall.Sendto", "syscall.Sendmsg*",
	"golang.org/x/sys/unix.Socket*", "golang.org/x/sys/unix.Connect*", "golang.org/x/sys/unix.Sendto", "golang.org/x/sys/unix.Sendmsg*",
	"golang.org/x/sys/windows.Socket*", "golang.org/x/sys/windows.Connect*",
	"golang.org/x/net/icmp.ListenPacket", "golang.org/x/net/proxy.*", "golang.org/x/net/websocket.Dial*",
	"github.com/coder/websocket.Dial", "github.com/quic-go/quic-go.Dial*", "github.com/quic-go/quic-go.Transport",
}

// mayTravel are the folders that stand on a road by trade, with the reason. All others
// take a policy.Dialer, or what was dialled, or are named with a reason in
// internal/arch/exceptions_test.go.
var mayTravel = map[string]string{
	"policy":              "the door itself: it asks before each dial",
	"transport":           "carries the tunnel between agent and gateway, whose addresses are the owner's own configuration",
	"transport/websocket": "carries the tunnel, see transport",
	"transport/quic":      "carries the tunnel, see transport",
	"pki":                 "enrols and renews at the gateway, before there is a tunnel",
	"pki/kubesecret":      "keeps the identity at the API server of the cluster that the agent itself runs in",
	"internal/testnet":    "plays a network in tests",
}

// oneDoor: what a tunnel carries reaches the private network through policy.Dialer, or a
// peer has found a way round the agent's owner.
var oneDoor = rule{
	name: "the network is reached through the policy's dialer",
	check: func(t *tree) (found []finding) {
		for s := range t.where(func(s *source) bool { return s.module == "." && !s.test && !imports[s.dir].suite }) {
			if mayTravel[s.dir] != "" {
				continue
			}
			for _, decl := range s.file.Decls {
				ast.Inspect(decl, func(n ast.Node) bool {
					if sel, ok := n.(*ast.SelectorExpr); ok {
						if name, ok := s.selector(sel); ok && isRoad(name) {
							found = append(found, t.finding(sel.Pos(), s.enclosing(decl),
								"uses %s, which leads past the policy; take a *policy.Dialer (DialTarget, Resolve, HTTP)", name))
						}
					}
					return true
				})
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "names of package net that lead nowhere, and those who may",
			files: map[string]string{
				"tunnel/a.go": `package tunnel
					import ("net"; "net/http")
					var _ net.Listener // not a listener of its own
					func F(c net.Conn, h http.Handler, r http.RoundTripper) { net.JoinHostPort("a", "b"); net.ParseIP("x"); c.Close(); net.InterfaceAddrs() }`,
				"policy/a.go":              `package policy; import "net"; var d net.Dialer`,
				"transport/quic/a.go":      `package quic; import quic "github.com/quic-go/quic-go"; var t quic.Transport`,
				"tunnel/a_test.go":         `package tunnel; import "net"; func f() { net.Dial("tcp", "x") }`,
				"tunnel/tunneltest/a.go":   `package tunneltest; import "net"; func f() { net.Dial("tcp", "x") }`,
				"examples/go.mod":          "module github.com/outgate/outgate/examples",
				"examples/agent/a.go":      `package main; import "net"; func f() { net.Dial("tcp", "x") }`,
				"transport/websocket/a.go": `package websocket; import "net/http"; var c http.Client`,
			},
		},
		{
			name: "every kind of road",
			files: map[string]string{"probes/a.go": `package probes
				import ("crypto/tls"; "net"; web "net/http"; "net/http/httputil"; "syscall"; "golang.org/x/net/icmp")
				func a() { net.Dial("tcp", "x") }
				func b() { var d net.Dialer; d.Dial("tcp", "x") }
				func c() { f := net.DialTimeout; f("tcp", "x", 0) }
				func d() { (&net.ListenConfig{}).ListenPacket(nil, "udp", "") }
				func e() { net.LookupHost("x") }
				func f() { _ = &net.Resolver{} }
				func g() { net.DefaultResolver.LookupHost(nil, "x") }
				func h() { tls.DialWithDialer(nil, "tcp", "x", nil) }
				func i() { web.Get("x") }
				func j() { _ = &web.Client{} }
				func k() { _ = httputil.ReverseProxy{} }
				func l() { syscall.Socket(0, 0, 0) }
				func m() { icmp.ListenPacket("ip4:icmp", "") }
				type n struct{ net.Dialer }
				func o() { net.ResolveTCPAddr("tcp", "x") }`},
			want: []string{
				"probes.a: uses net.Dial,", "probes.b: uses net.Dialer", "probes.c: uses net.DialTimeout", "probes.d: uses net.ListenConfig", "probes.e: uses net.LookupHost",
				"probes.f: uses net.Resolver", "probes.g: uses net.DefaultResolver", "probes.h: uses crypto/tls.DialWithDialer", "probes.i: uses net/http.Get", "probes.j: uses net/http.Client",
				"probes.k: uses net/http/httputil.ReverseProxy", "probes.l: uses syscall.Socket", "probes.m: uses golang.org/x/net/icmp.ListenPacket", "uses net.Dialer", "probes.o: uses net.ResolveTCPAddr",
			},
		},
	},
}

func isRoad(name string) bool {
	if name == "net.Listener" {
		return false
	}
	for _, road := range roads {
		if prefix, open := strings.CutSuffix(road, "*"); name == road || open && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
