package pki_test

import (
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestGrantRefusesWhatItCannotKeep(t *testing.T) {
	a, _ := newAuthority(t)
	many := make(map[string]string)
	for i := range 65 {
		many[strings.Repeat("x", i)] = ""
	}
	for name, g := range map[string]pki.Grant{
		"a name that is no label":     {Agent: "Edge"},
		"a TTL of more than a day":    {TTL: 24*time.Hour + 1},
		"a negative TTL":              {TTL: -1},
		"too many labels":             {Labels: many},
		"too many networks":           {Networks: make([]netip.Prefix, 65)},
		"a network that is none":      {Networks: make([]netip.Prefix, 1)},
		"IPv4 written as IPv6":        {Networks: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}},
		"a name that need not attach": {Agent: "edge", Reattach: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Grant(t.Context(), g)
			require.Error(t, err)
		})
	}
}

func TestTheLifeOfATokenHasALimit(t *testing.T) {
	for name, c := range map[string]struct {
		limit, ttl, want time.Duration // want 0: refused
	}{
		"fifteen minutes by hand":        {0, 0, 15 * time.Minute},
		"a day for automation":           {0, pki.TTLAutomation, 24 * time.Hour},
		"no more unless configured":      {0, 24*time.Hour + 1, 0},
		"a week where that is the limit": {7 * day, 7 * day, 7 * day},
		"no more than the limit":         {7 * day, 7*day + 1, 0},
		"a limit below the default":      {time.Minute, 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			a.MaxGrantTTL = c.limit
			_, err := a.Grant(t.Context(), pki.Grant{TTL: c.ttl})
			if c.want == 0 {
				require.ErrorContains(t, err, "MaxGrantTTL")
				return
			}
			require.NoError(t, err)
			grants, err := a.Grants(t.Context(), "")
			require.NoError(t, err)
			require.Equal(t, c.want, grants[0].Expires.Sub(grants[0].Created))
		})
	}
}

func TestATokenForOneKeyIsUselessWithAnother(t *testing.T) {
	a, _ := newAuthority(t)
	key := newKey(t)
	token := grant(t, a, pki.Grant{Agent: "edge", Key: pinOf(t, key)})
	_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
	requireRefused(t, err)
	// A thief can do nothing with it, so it is not burned for the agent either.
	c, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, key)})
	require.NoError(t, err)
	require.Equal(t, pinOf(t, key), pki.PinOf(leafOf(t, c)))
}

func TestATokenIsRedeemedFromItsNetworksOnly(t *testing.T) {
	for source, ok := range map[string]bool{
		"192.0.2.17:1234": true, "192.0.2.17": true, "[::ffff:192.0.2.17]:1": true,
		"[2001:db8::1]:1": true, "[2001:db8::1%eth0]:1": true,
		"192.0.3.17:1234": false, "[2001:db9::1]:1": false, "": false, "@": false, "192.0.2.17.example.com:1": false,
	} {
		t.Run(source, func(t *testing.T) {
			a, _ := newAuthority(t)
			token := grant(t, a, pki.Grant{Networks: []netip.Prefix{
				netip.MustParsePrefix("192.0.2.255/24"), netip.MustParsePrefix("2001:db8::/32"),
			}})
			r := pki.Registration{Token: token, CSR: csrOf(t, newKey(t)), Source: source}
			_, err := a.Register(t.Context(), r)
			if ok {
				require.NoError(t, err)
				return
			}
			requireRefused(t, err)
			r.Source = "192.0.2.1:1"
			_, err = a.Register(t.Context(), r)
			require.NoError(t, err, "nothing was spent")
		})
	}
}

func TestGrantsAreListedWithTheirStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		status := func(token pki.Token) pki.GrantStatus {
			grants, err := a.Grants(t.Context(), "")
			require.NoError(t, err)
			for _, g := range grants {
				if g.ID == token.ID() {
					return g.Status(time.Now())
				}
			}
			return "missing"
		}
		redeemed, revoked := grant(t, a, pki.Grant{Agent: "edge"}), grant(t, a, pki.Grant{})
		open, locked := grant(t, a, pki.Grant{TTL: time.Hour}), grant(t, a, pki.Grant{})
		require.Equal(t, pki.GrantOpen, status(redeemed))
		_, err := a.Register(t.Context(), pki.Registration{Token: redeemed, CSR: csrOf(t, newKey(t))})
		require.NoError(t, err)
		require.NoError(t, a.RevokeGrant(t.Context(), revoked.ID(), "posted"))
		wrong, err := pki.ParseToken(locked.ID() + "." + goodSecret)
		require.NoError(t, err)
		for range 5 {
			_, err := a.Register(t.Context(), pki.Registration{Token: wrong, CSR: csrOf(t, newKey(t))})
			requireRefused(t, err)
		}
		time.Sleep(20 * time.Minute)
		require.Equal(t, pki.GrantRedeemed, status(redeemed))
		require.Equal(t, pki.GrantVoid, status(revoked))
		require.Equal(t, pki.GrantVoid, status(locked))
		require.Equal(t, pki.GrantOpen, status(open))
		time.Sleep(time.Hour)
		require.Equal(t, pki.GrantExpired, status(open))

		grants, err := a.Grants(t.Context(), "edge")
		require.NoError(t, err)
		require.Len(t, grants, 1)
		for _, g := range grants {
			require.NotContains(t, fmt.Sprintf("%+v", g), strings.SplitN(redeemed.Reveal(), ".", 2)[1])
		}
	})
}

func TestATokenIsMintedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		key := newKey(t)
		lost := grant(t, a, pki.Grant{
			Agent: "edge", TTL: time.Hour, Labels: map[string]string{"site": "zrh"}, Key: pinOf(t, key),
			Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		})
		time.Sleep(2 * time.Hour) // it has expired
		token, err := a.Remint(t.Context(), lost.ID())
		require.NoError(t, err)
		require.NotEqual(t, lost.ID(), token.ID())
		r := pki.Registration{Token: lost, CSR: csrOf(t, key), Source: "192.0.2.1:1"}
		_, err = a.Register(t.Context(), r)
		requireRefused(t, err)

		r.Token = token
		for _, other := range []pki.Registration{
			{Token: token, CSR: csrOf(t, newKey(t)), Source: r.Source},
			{Token: token, CSR: r.CSR, Source: "198.51.100.1:1"},
		} {
			_, err = a.Register(t.Context(), other)
			requireRefused(t, err)
		}
		time.Sleep(time.Hour - 1)
		c, err := a.Register(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, "edge", c.Agent)
		require.Equal(t, map[string]string{"site": "zrh"}, agentOf(t, a, "edge").Labels)

		_, err = a.Remint(t.Context(), "nobody")
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}
