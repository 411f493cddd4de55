package quic

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestASourceIsAnIPv4AddressOrAnIPv6Network(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7":            "192.0.2.7/32",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::":  "2001:db8:1:2::/64",
		"2001:db8:1:3:3:4:5:6": "2001:db8:1:3::/64",
		"fe80::1":              "fe80::/64",
	} {
		assert.Equal(t, want, sourceOf(&net.UDPAddr{IP: net.ParseIP(address), Port: 4711}).String(), address)
	}
	assert.Equal(t, "fe80::/64", sourceOf(&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}).String())
	assert.False(t, sourceOf(&net.UnixAddr{Name: "x"}).IsValid())
	assert.False(t, sourceOf(&net.UDPAddr{}).IsValid())
}
