package policy_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

var (
	label63 = strings.Repeat("a", 63)
	name253 = strings.Join([]string{label63, label63, label63, strings.Repeat("a", 61)}, ".")
)

func TestATargetHasOneSpelling(t *testing.T) {
	for _, tt := range []struct {
		service, address string
		want             policy.Target
	}{
		{"tcp", "db.internal:5432", policy.Target{Service: "tcp", Host: "db.internal", Port: 5432}},
		{"http", "db.internal:80", policy.Target{Service: "http", Host: "db.internal", Port: 80}},
		{"udp", "ns:53", policy.Target{Service: "udp", Host: "ns", Port: 53}},
		{"tcp", "DB.Internal:5432", policy.Target{Service: "tcp", Host: "db.internal", Port: 5432}},
		{"tcp", "db.internal.:5432", policy.Target{Service: "tcp", Host: "db.internal", Port: 5432}},
		{"tcp", "LOCALHOST:1", policy.Target{Service: "tcp", Host: "localhost", Port: 1}},
		{"tcp", "_pg._tcp.db:65535", policy.Target{Service: "tcp", Host: "_pg._tcp.db", Port: 65535}},
		{"tcp", "a_b-c.d:9", policy.Target{Service: "tcp", Host: "a_b-c.d", Port: 9}},
		{"tcp", "1.a:9", policy.Target{Service: "tcp", Host: "1.a", Port: 9}},
		{"tcp", "10.0.0.1.nip.io:9", policy.Target{Service: "tcp", Host: "10.0.0.1.nip.io", Port: 9}},
		{"tcp", "0x7f.com:9", policy.Target{Service: "tcp", Host: "0x7f.com", Port: 9}},
		{"tcp", "0xfg:9", policy.Target{Service: "tcp", Host: "0xfg", Port: 9}},
		{"tcp", "1e3:9", policy.Target{Service: "tcp", Host: "1e3", Port: 9}},
		{"tcp", "r3---sn-x.example:9", policy.Target{Service: "tcp", Host: "r3---sn-x.example", Port: 9}},
		{"tcp", "xn--bcher-kva.example:443", policy.Target{Service: "tcp", Host: "xn--bcher-kva.example", Port: 443}},
		{"tcp", "xn--bcher-kva.EXAMPLE:443", policy.Target{Service: "tcp", Host: "xn--bcher-kva.example", Port: 443}},
		{"tcp", label63 + ".x:1", policy.Target{Service: "tcp", Host: label63 + ".x", Port: 1}},
		{"tcp", name253 + ":65535", policy.Target{Service: "tcp", Host: name253, Port: 65535}},
		{"tcp", name253 + ".:65535", policy.Target{Service: "tcp", Host: name253, Port: 65535}},
		{"tcp", "10.0.1.50:8080", policy.Target{Service: "tcp", Host: "10.0.1.50", Port: 8080}},
		{"tcp", "0.0.0.0:1", policy.Target{Service: "tcp", Host: "0.0.0.0", Port: 1}},
		{"tcp", "[::1]:80", policy.Target{Service: "tcp", Host: "::1", Port: 80}},
		{"tcp", "[2001:DB8:0:0::1]:80", policy.Target{Service: "tcp", Host: "2001:db8::1", Port: 80}},
		{"tcp", "[2001:0db8::0001]:80", policy.Target{Service: "tcp", Host: "2001:db8::1", Port: 80}},
		{"tcp", "[::ffff:10.0.0.1]:80", policy.Target{Service: "tcp", Host: "10.0.0.1", Port: 80}},
		{"tcp", "[::ffff:a00:1]:80", policy.Target{Service: "tcp", Host: "10.0.0.1", Port: 80}},
		{"tcp", "[64:ff9b::10.0.0.1]:80", policy.Target{Service: "tcp", Host: "64:ff9b::a00:1", Port: 80}},
		{"icmp", "DB.internal.", policy.Target{Service: "icmp", Host: "db.internal"}},
		{"icmp", "10.0.0.1", policy.Target{Service: "icmp", Host: "10.0.0.1"}},
		{"icmp", "2001:DB8::1", policy.Target{Service: "icmp", Host: "2001:db8::1"}},
		{"icmp", "::ffff:10.0.0.1", policy.Target{Service: "icmp", Host: "10.0.0.1"}},
		{"unix", "/run/x.sock", policy.Target{Service: "unix", Path: "/run/x.sock"}},
		{"unix", "/run/with space", policy.Target{Service: "unix", Path: "/run/with space"}},
		{"unix", "/" + strings.Repeat("a", 103), policy.Target{Service: "unix", Path: "/" + strings.Repeat("a", 103)}},
		{"example.com/x", "", policy.Target{Service: "example.com/x"}},
		{"example.com/x", "any thing, at: all", policy.Target{Service: "example.com/x", Path: "any thing, at: all"}},
		{"a-b.example.com/x_y/v1.2", "q", policy.Target{Service: "a-b.example.com/x_y/v1.2", Path: "q"}},
		{"example.com/x", strings.Repeat("a", 256), policy.Target{Service: "example.com/x", Path: strings.Repeat("a", 256)}},
	} {
		got, err := policy.ParseTarget(tt.service, tt.address)
		if assert.NoError(t, err) && assert.Equal(t, tt.want, got) {
			again, err := policy.ParseTarget(got.Service, got.Address())
			require.NoError(t, err)
			require.Equal(t, got, again)
		}
	}
}

// hostileHosts are refused whatever port follows.
var hostileHosts = []string{
	// Nothing, and what Go dials as the local machine.
	"", ".", "..", "...", "[]", "[", "]", "[]]", "*", "*.internal", "?", "~", "-",
	// Read as an IPv4 address by inet_aton, by URL parsers, or by a resolver.
	"0", "1", "127", "127.1", "127.0.1", "2130706433", "4294967295", "4294967296", "00000000000000000000001", "0x7f000001", "0X7F000001",
	"0x7f.1", "0x7f.0.0.1", "0x7f.0x0.0x0.0x1", "127.0x1", "017700000001", "0177.0.0.1", "0177.0.0.01", "127.0.0.01", "127.0.0.001", "127.00.0.1",
	"08.8.8.8", "10.0.0.1.", "127.1.", "0x", "0x.", "a.0x", "a.0x1f", "a.1", "a.b.1.", "256.0.0.1", "1.2.3.256", "1.2.3.4.5", "1.2.3", "1.2", "1.2.3.",
	"999999999999.1", "0.0", "00.00.00.00", "127.0.0.1.0", "169.254.43518", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376",
	// Empty labels, lengths, hyphens.
	".a", "a..b", "a.b..", ".db.internal", "db..internal", "db.internal..", strings.Repeat("a", 64), strings.Repeat("a", 64) + ".b", name253 + "a",
	name253 + "a.", name253 + ".a", strings.Repeat("a.", 127) + "b", strings.Repeat("a", 5000), "-a", "a-", "a.-b", "a.b-", "a-.b", "-.a", "--",
	// Other bytes.
	"a b", " a", "a ", "a\t", "a\n", "a\r\nb", "\x00", "a\x00", "a\x00.internal", "127.0.0.1\x00.internal", "a\x7f", "a\x80", "a/b", "/a", "a\\b", "a#b", "a?b", "a&b",
	"a%41", "%61", "a%00", "%2e", "%", "a;b", "a,b", "a=b", "a+b", "a!b", "a$b", "a'b", "a\"b", "a(b", "a<b", "a|b", "a{b", "a^b", "a`b", "a~b", "a*b", "a.*.b",
	// Userinfo, schemes, paths.
	"user@db", "user@", "@db", "db@127.0.0.1", "http//db", "//db", "db/..", "db/",
	// Not ASCII: confusable letters and dots, fullwidth digits, invisible characters, broken UTF-8.
	"bücher.example", "dÐb", "раураl.com", "db。internal", "db．internal", "db｡internal", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "ｌocalhost", "local\u00adhost", "local\u200bhost",
	"\u202edb", "db\ufeff", "\ufeffdb", "db\u2024internal", "K8s\u212a", "\xff\xfe", "\xc0\xae", "ßx", "İ", "ı",
	// A-labels that are not plain.
	"XN--bcher-kva.example", "Xn--bcher-kva.example", "xN--bcher-kva.example", "xn--Bcher-kva.example", "xn--", "xn--.example", "a.xn--", "xn--example-", "xn--a_b", "xn---",
	// Brackets around what is not IPv6, or not closed.
	"[127.0.0.1]", "[localhost]", "[db]", "[::1", "::1]", "[[::1]]", "[::1]a", "a[::1]", "[::1].", "[]::1", "[::1]]", "[ ::1]", "[::1 ]", "[0]",
	// IPv6 without brackets, with zones, broken.
	"::1", "2001:db8::1", "::", "::ffff:127.0.0.1", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1%lo]", "[::1%]", "[::1%25]", "[2001:db8::1%0]", "[:::]", "[::1::]", "[1:2:3:4:5:6:7]",
	"[1:2:3:4:5:6:7:8:9]", "[12345::]", "[::g]", "[::127.1]", "[::ffff:0177.0.0.1]", "[::ffff:127.0.0.01]", "[::ffff:127.0.0.256]", "[::1.2.3.4.5]", "[::0x1]", "[:1]", "[1:]", "[::1/128]",
}

var hostilePorts = []string{
	"", "0", "00", "080", "0080", "+80", "-80", "-0", " 80", "80 ", "8 0", "65536", "65616", "99999", "100000", "4294967376", "18446744073709551696", "http", "https", "postgres",
	"0x50", "8e1", "80.0", "80.", "1_000", "８０", "80\x00", "80\n", "\t80", "80/", "80#", "80?", "80,443", "80-90", "*", "80:80", ":80", "80:", "%38%30", "a", "/", "@80",
}

func TestHostileTargetsAreRefused(t *testing.T) {
	refused := 0
	refuse := func(service, address string) {
		t.Helper()
		got, err := policy.ParseTarget(service, address)
		var bad *policy.TargetError
		if !assert.ErrorAs(t, err, &bad, "%s %q became %v", service, address, got) {
			return
		}
		assert.Equal(t, policy.Target{}, got)
		assert.Equal(t, address, bad.Address)
		assert.NotEmpty(t, bad.Reason)
		assert.ErrorIs(t, err, transport.Protocol)
		assert.NotErrorIs(t, err, transport.Denied)
		assert.Less(t, len(err.Error()), 700, "the text is bounded")
		refused++
	}
	for _, service := range []string{"tcp", "http", "udp"} {
		for _, host := range hostileHosts {
			refuse(service, host+":80")
			refuse(service, host)
		}
		for _, port := range hostilePorts {
			refuse(service, "db.internal:"+port)
			refuse(service, "10.0.0.1:"+port)
			refuse(service, "[2001:db8::1]:"+port)
		}
		for _, address := range []string{"db", "10.0.0.1", "[::1]", "db:80:80", "db:80 db:81", "tcp://db:80", "http://db:80/", "tcp:db:80", "unix:/run/x.sock", "/run/x.sock", "db:80/", "db:80?x", "[::1]80", "[::1]:80:80"} {
			refuse(service, address)
		}
	}
	for _, host := range hostileHosts {
		if !strings.Contains(host, ":") || strings.HasPrefix(host, "[") {
			refuse("icmp", host)
		}
	}
	for _, host := range []string{"db:80", "10.0.0.1:80", "[::1]", "[::1]:80", "::1%lo", "1:2:3", "::ffff:127.0.0.01", strings.Repeat("1", 1000)} {
		refuse("icmp", host)
	}
	for _, path := range []string{
		"", "x", "x.sock", "./x", "../x", "@abstract", "\x00abstract", "@", "/", "//", "/x/", "//x", "/x//y", "/./x", "/x/.", "/x/..", "/../x", "/x/../y", "/x\x00", "/x\n", "/x\t", "/x\x7f",
		"/\xff", "/ü", "/" + strings.Repeat("a", 104), " /x", "~/x", "unix:/x", "C:\\x", "\\\\.\\pipe\\x",
	} {
		refuse("unix", path)
	}
	for _, address := range []string{"\x00", "a\n", "a\t", "a\x7f", "ü", "\xff", strings.Repeat("a", 257)} {
		refuse("example.com/x", address)
	}
	require.GreaterOrEqual(t, len(hostileHosts)+len(hostilePorts), 200)
	t.Logf("%d hostile targets refused", refused)
}

func TestUnknownServicesAreRefused(t *testing.T) {
	for _, service := range []string{
		"", " ", "TCP", "Tcp", " tcp", "tcp ", "tcp4", "tcp6", "udp4", "https", "HTTP", "ip", "ip4:icmp", "unixgram", "Unix", "kube", "probe", "control", "dns", "example.com", "*", "\x00", "tcp\x00",
	} {
		_, err := policy.ParseTarget(service, "db:80")
		require.ErrorIs(t, err, transport.UnknownService, "service %q", service)
		require.NotErrorIs(t, err, transport.Protocol)
	}
	for _, service := range []string{
		"/", "/x", "x/", "example/x", "example.com/", "Example.com/x", "example.com/X", "example.com//x", "example.com/x/", "example.com/..", "example.com/a/./b", "example.com/a b", "example.com./x",
		".example.com/x", "example..com/x", "1.2.3.4/x", "127.1/x", "ex_ample.com/x", "-a.com/x", "example.com/x\x00", "example.com/ü", "exämple.com/x", "xn--.com/x", "example.com:80/x",
		"example.com/" + strings.Repeat("a", 128), strings.Repeat("a", 64) + ".com/x", "tcp/x", "http://example.com/x", "[::1]/x",
	} {
		_, err := policy.ParseTarget(service, "")
		require.ErrorIs(t, err, transport.Protocol, "service %q", service)
	}
}

func TestAHandMadeTargetIsRefused(t *testing.T) {
	open := rules(t, "enable_access_restrictions: false\ndenied_endpoints: [db.internal, 10.0.0.1]")
	for _, hand := range []policy.Target{
		{},
		{Service: "tcp"},
		{Service: "tcp", Host: "db"},
		{Service: "tcp", Host: "DB.internal", Port: 1},
		{Service: "tcp", Host: "db.internal.", Port: 1},
		{Service: "tcp", Host: "::ffff:10.0.0.1", Port: 1},
		{Service: "tcp", Host: "[2001:db8::1]", Port: 1},
		{Service: "tcp", Host: "2001:DB8::1", Port: 1},
		{Service: "tcp", Host: "10.1", Port: 1},
		{Service: "tcp", Host: "db:1", Port: 1},
		{Service: "tcp", Host: "db", Port: 1, Path: "/x"},
		{Service: "TCP", Host: "db", Port: 1},
		{Service: "icmp", Host: "db", Port: 1},
		{Service: "icmp", Host: "DB"},
		{Service: "icmp"},
		{Service: "unix", Path: "/x/../y"},
		{Service: "unix", Path: "/x", Port: 1},
		{Service: "unix", Path: "/x", Host: "db"},
		{Service: "unix", Host: "db", Port: 1},
		{Service: "example.com/x", Host: "db", Port: 1},
		{Service: "kube"},
	} {
		r := policy.Request{Target: hand}
		var denied *policy.Denied
		require.ErrorAs(t, open.Authorize(t.Context(), r), &denied, "%#v", hand)
		require.False(t, open.Explain(r).Allowed)
		require.False(t, open.AllowSpecial(r))
		_, err := (&policy.Dialer{Policy: policy.InsecureAllowAll()}).DialTarget(t.Context(), r)
		var bad *policy.TargetError
		require.ErrorAs(t, err, &bad, "%#v", hand)
	}
}

func TestATargetErrorDoesNotRepeatALongAddress(t *testing.T) {
	_, err := policy.ParseTarget(strings.Repeat("s", 1<<20), strings.Repeat("\x00", 1<<20))
	require.Less(t, len(err.Error()), 1000)
	var bad *policy.TargetError
	require.ErrorAs(t, err, &bad)
}
