package policy_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

func TestTheDenyFloor(t *testing.T) {
	for kind, addrs := range map[string][]string{
		"loopback": {
			"127.0.0.1", "127.0.0.0", "127.1.2.3", "127.255.255.255", "::1", "::ffff:127.0.0.1",
			"::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::7fff:ffff", "2002:7f00:1::", "2002:7f00:1:ffff:ffff:ffff:ffff:ffff",
			"64:ff9b:1::127.0.0.1", "64:ff9b:1:2:3:4:127.0.0.1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1:aa7f:0:1::", "64:ff9b:1:aabb:7f:0:100:0",
			"2001:0:7f00:1::", "2001:0:808:808:0:0:80ff:fffe", "2001:db8::5efe:127.0.0.1", "2001:db8::200:5efe:127.0.0.1", "fd00::5efe:7f00:1",
		},
		"link-local": {
			"169.254.0.0", "169.254.255.255", "169.254.1.1", "fe80::", "fe80::1", "fe80::1%eth0", "febf:ffff::1", "::ffff:169.254.1.1", "64:ff9b::169.254.1.1", "2002:a9fe:101::", "fe80::5efe:10.0.0.1",
		},
		"unspecified": {"0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::ffff:0.0.0.0", "64:ff9b::", "2002::", "2001::", "::2"},
		"multicast":   {"224.0.0.0", "224.0.0.251", "239.255.255.255", "ff00::", "ff02::1", "ff05::2", "64:ff9b::224.0.0.1", "2002:e000:1::"},
		"broadcast":   {"255.255.255.255", "::ffff:255.255.255.255", "64:ff9b::ffff:ffff", "2002:ffff:ffff::"},
		"metadata": {
			"169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fe80::a9fe:a9fe",
			"::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::100.100.100.200", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2001:0:a9fe:a9fe::", "2001:0:808:808::5601:5601", "2001:db8::5efe:169.254.169.254",
			"fd00:ec2::254%eth0",
		},
	} {
		for _, addr := range addrs {
			got, special := policy.Special(netip.MustParseAddr(addr))
			require.True(t, special, addr)
			require.Equal(t, kind, got, addr)
		}
	}
	kind, special := policy.Special(netip.Addr{})
	require.True(t, special)
	require.Equal(t, "invalid", kind)
}

func TestPrivateAndPublicAddressesAreNotSpecial(t *testing.T) {
	for _, addr := range []string{
		"10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.201", "8.8.8.8", "1.0.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0", "168.63.129.17",
		"223.255.255.255", "240.0.0.1", "255.255.255.254", "198.18.0.1", "192.0.2.1",
		"2001:db8::1", "fd00::1", "fd00:ec2::255", "fec0::1", "fc00::1", "2606:4700::1111", "64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1", "64:ff9b:2::7f00:1", "64:ff9c::7f00:1",
		"64:ff9b:1:a00:0:100::", "64:ff9b:0:0:0:1:7f00:1", "2002:a00:1::", "2002:808:808::1", "2003:7f00:1::", "2001:0:808:808:0:0:f5ff:fffe", "2001:1:7f00:1::",
		"::10.0.0.1", "::ffff:10.0.0.1", "2001:db8::5efe:10.0.0.1", "2001:db8::5eff:127.0.0.1", "2001:db8::400:5efe:127.0.0.1", "2001:db8::7f00:1",
	} {
		kind, special := policy.Special(netip.MustParseAddr(addr))
		require.False(t, special, "%s is %s", addr, kind)
	}
}

// The oracle is a list of prefixes, the code is a walk over bytes.
func TestTheDenyFloorAgreesWithAListOfPrefixes(t *testing.T) {
	random := newRandom(t, 1)
	special, plain := 0, 0
	for range 50_000 {
		addr := randomAddr(random)
		_, got := policy.Special(addr)
		want := naiveSpecial(addr)
		require.Equal(t, want, got, addr.String())
		if want {
			special++
		} else {
			plain++
		}
	}
	require.Greater(t, special, 5_000)
	require.Greater(t, plain, 5_000)
}
