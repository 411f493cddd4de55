package testnet

import (
	"fmt"
	"net/netip"
	"strings"
)

// Filter is what the router does to the packets of a host. The zero value forwards all.
// Nobody is told of what it drops, except by Reject.
type Filter struct {
	Loss     float64 // share dropped at random in each direction, below 1
	DropTo   bool    // all to the host
	DropFrom bool    // all from the host
	NoEnds   bool    // TCP packets with FIN or RST, both ways: who ends leaves the other half-open
	MTU      int     // longer packets, without the ICMP message that says so; 0 forwards all
	Reject   bool    // all, with an ICMP message to the sender
}

// Filter replaces what the router does to the packets of h.
func (h *Host) Filter(f Filter) error {
	table := "inet " + h.port
	var b strings.Builder
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", table, table)
	if f != (Filter{}) {
		fmt.Fprintf(&b, "table %s {\nchain forward {\ntype filter hook forward priority 0; policy accept\n", table)
		to, from := fmt.Sprintf("oifname %q", h.port), fmt.Sprintf("iifname %q", h.port)
		rule := func(on bool, format string, args ...any) {
			if on {
				fmt.Fprintf(&b, "%s\n", fmt.Sprintf(format, args...))
			}
		}
		rule(f.DropTo, "%s drop", to)
		rule(f.DropFrom, "%s drop", from)
		for _, way := range []string{to, from} {
			rule(f.Loss > 0, "%s numgen random mod 10000 < %d drop", way, int(f.Loss*10000))
			rule(f.NoEnds, "%s tcp flags & (fin|rst) != 0 drop", way)
			rule(f.MTU > 0, "%s meta length > %d drop", way, f.MTU)
			rule(f.Reject, "%s reject", way)
		}
		b.WriteString("}\n}\n")
	}
	return runInput(b.String(), "ip", "netns", "exec", h.lab.router, "nft", "-f", "-")
}

// Unplug pulls the cable of h, or plugs it in again.
func (h *Host) Unplug(out bool) error {
	state := "up"
	if out {
		state = "down"
	}
	return run("ip", "-n", h.lab.router, "link", "set", h.port, state)
}

// Rate limits both directions to a number of bits per second; 0 is no limit.
func (h *Host) Rate(bits int64) error {
	for _, end := range []struct{ ns, dev string }{{h.lab.router, h.port}, {h.name, hostInterface}} {
		args := []string{"-n", end.ns, "qdisc", "replace", "dev", end.dev, "root"}
		if bits == 0 {
			args = append(args, "noqueue")
		} else {
			args = append(args, "tbf", "rate", fmt.Sprint(bits), "burst", "16kb", "latency", "200ms")
		}
		if err := run("tc", args...); err != nil {
			return err
		}
	}
	return nil
}

// Move gives h another address and takes the old one away, as a roaming host sees it.
func (h *Host) Move() error {
	h.moves++
	next := h.Addr.As4()
	next[3] = byte(2 + h.moves%100)
	old := h.Addr
	h.Addr = netip.AddrFrom4(next)
	if err := run("ip", "-n", h.name, "addr", "add", h.Addr.String()+"/24", "dev", hostInterface); err != nil {
		return err
	}
	// Taking the first address of a subnet takes the others, unless they are promoted.
	if err := h.Sysctl("net.ipv4.conf." + hostInterface + ".promote_secondaries=1"); err != nil {
		return err
	}
	if err := run("ip", "-n", h.name, "addr", "del", old.String()+"/24", "dev", hostInterface); err != nil {
		return err
	}
	return h.route()
}
