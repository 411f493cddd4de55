package policy_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers over UDP from a zone.
type nameServer struct {
	conn net.PacketConn
	done chan struct{}
	// answer returns the records of a canonical name, each an address or the name that
	// it is an alias of; nil is a name that does not exist. It is called for each query.
	answer func(name string) []string

	mu      sync.Mutex
	queries int
}

func serveDNS(address string, answer func(name string) []string) (*nameServer, error) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	s := &nameServer{conn: conn, answer: answer, done: make(chan struct{})}
	go s.serve()
	return s, nil
}

func (s *nameServer) close() {
	_ = s.conn.Close()
	<-s.done
}

func (s *nameServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries
}

// resolver is the Go resolver, asking s.
func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve() {
	defer close(s.done)
	packet := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.queries++
		s.mu.Unlock()
		if reply := s.reply(packet[:n]); reply != nil {
			_, _ = s.conn.WriteTo(reply, from)
		}
	}
}

func (s *nameServer) reply(packet []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(packet)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionAvailable: true, RecursionDesired: header.RecursionDesired},
		Questions: []dnsmessage.Question{q},
	}
	records := s.answer(strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")))
	if records == nil {
		m.RCode = dnsmessage.RCodeNameError
	}
	owner := q.Name
	for len(records) > 0 {
		next := records
		records = nil
		for _, r := range next {
			addr, err := netip.ParseAddr(r)
			h := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET}
			switch {
			case err != nil: // an alias, and what that is known by
				alias := dnsmessage.MustNewName(r + ".")
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: alias}})
				owner, records = alias, s.answer(r)
			case addr.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
			case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
			}
		}
		if len(m.Answers) > 30 { // a loop of aliases
			break
		}
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}
