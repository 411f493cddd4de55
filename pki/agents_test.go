package pki_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

const anyUUID = `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`

// An agent brings an ID or none, which is new, known or expected.
func TestAnAgentAttachesToItsRecord(t *testing.T) {
	for name, c := range map[string]struct {
		grant pki.Grant
		asked string
		want  string // a pattern; empty: refused
		site  string // label of the record afterwards
	}{
		"an ID that is new makes a record":                      {pki.Grant{}, "new", "^new$", ""},
		"no ID gets a UUID":                                     {pki.Grant{}, "", anyUUID, ""},
		"a known ID attaches":                                   {pki.Grant{Reattach: true}, "known", "^known$", "zrh"},
		"an expected ID attaches":                               {pki.Grant{Reattach: true}, "expected", "^expected$", "gva"},
		"a known ID attaches by a token of its name":            {pki.Grant{Agent: "known"}, "", "^known$", "zrh"},
		"an expected ID attaches by a token of its name":        {pki.Grant{Agent: "expected"}, "expected", "^expected$", "gva"},
		"labels of the grant replace those of the record":       {pki.Grant{Agent: "known", Labels: map[string]string{"site": "bsl"}}, "", "^known$", "bsl"},
		"a known ID is not for every token":                     {pki.Grant{}, "known", "", "zrh"},
		"nor is an expected one":                                {pki.Grant{}, "expected", "", "gva"},
		"nor one that a token waits for, known or not":          {pki.Grant{Reattach: true}, "promised", "", ""},
		"a UUID of the agent's own is a name like any other":    {pki.Grant{}, "0f0e0d0c-0b0a-4908-8706-050403020100", "^0f0e0d0c-0b0a-4908-8706-050403020100$", ""},
		"a token that may re-attach takes a new name as well":   {pki.Grant{Reattach: true}, "new", "^new$", ""},
		"a token that may re-attach makes a UUID without an ID": {pki.Grant{Reattach: true}, "", anyUUID, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			_, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), a, pki.Registration{
				Token:    grant(t, a, pki.Grant{Agent: "known", Labels: map[string]string{"site": "zrh"}}),
				Hostname: "old-host",
			})
			require.NoError(t, err)
			require.NoError(t, a.PutAgent(t.Context(), "expected", map[string]string{"site": "gva"}))
			grant(t, a, pki.Grant{Agent: "promised"})

			got, err := a.Register(t.Context(), pki.Registration{
				Token: grant(t, a, c.grant), Agent: c.asked, CSR: csrOf(t, newKey(t)),
				Hostname: "new-host", Metadata: map[string]string{"os": "linux", "site": "moon"},
			})
			if c.want == "" {
				requireRefused(t, err)
				return
			}
			require.NoError(t, err)
			require.Regexp(t, c.want, got.Agent)
			record := agentOf(t, a, got.Agent)
			require.Equal(t, c.site, record.Labels["site"])
			require.Equal(t, "new-host", record.Hostname)
			require.Equal(t, map[string]string{"os": "linux", "site": "moon"}, record.Metadata)
			require.False(t, record.Enrolled.IsZero())
			require.False(t, record.Created.After(record.Enrolled))
			agents, err := a.Agents(t.Context())
			require.NoError(t, err)
			known := map[string]bool{"known": true, "expected": true, got.Agent: true}
			require.Len(t, agents, len(known), "one record for each name")
		})
	}
}

func TestAnAgentIsKnownBeforeItEnrols(t *testing.T) {
	a, _ := newAuthority(t)
	require.NoError(t, a.PutAgent(t.Context(), "edge", map[string]string{"site": "zrh"}))
	agents, err := a.Agents(t.Context())
	require.NoError(t, err)
	require.Len(t, agents, 1)
	require.Equal(t, "edge", agents[0].Name)
	require.True(t, agents[0].Enrolled.IsZero())

	enroll(t, a, "edge")
	require.NoError(t, a.PutAgent(t.Context(), "edge", map[string]string{"site": "gva"}))
	record := agentOf(t, a, "edge")
	require.Equal(t, map[string]string{"site": "gva"}, record.Labels)
	require.Equal(t, agents[0].Created, record.Created)
	require.False(t, record.Enrolled.IsZero())

	require.Error(t, a.PutAgent(t.Context(), "Not A Name", nil))
	many := make(map[string]string)
	for i := range 65 {
		many[fmt.Sprint(i)] = ""
	}
	require.ErrorContains(t, a.PutAgent(t.Context(), "edge", many), "at most 64")
}

func TestARemovedAgentLeavesItsName(t *testing.T) {
	a, _ := newAuthority(t)
	identity := enroll(t, a, "edge")
	waiting := grant(t, a, pki.Grant{Agent: "edge"})
	revoked, err := a.RemoveAgent(t.Context(), "edge", "scrapped")
	require.NoError(t, err)
	require.Len(t, revoked, 1)
	require.ErrorIs(t, a.Verify(t.Context(), identity.Certificate().Leaf), pki.ErrRevoked)
	agents, err := a.Agents(t.Context())
	require.NoError(t, err)
	require.Empty(t, agents)
	_, err = a.Register(t.Context(), pki.Registration{Token: waiting, CSR: csrOf(t, newKey(t))})
	requireRefused(t, err)

	c, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{}), Agent: "edge", CSR: csrOf(t, newKey(t))})
	require.NoError(t, err, "the name is free, also for an unbound token")
	require.NoError(t, a.Verify(t.Context(), leafOf(t, c)))
	require.True(t, agentOf(t, a, "edge").Removed.IsZero())

	_, err = a.RemoveAgent(t.Context(), "nobody", "")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestNamesAreDNSLabels(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "0": true, "a-b": true, "a--b": true, strings.Repeat("a", 63): true,
		"": false, "-": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false, "a b": false,
		"ä": false, "a\x00": false, "a/b": false, strings.Repeat("a", 64): false,
	} {
		require.Equal(t, ok, pki.CheckName(name) == nil, "%q", name)
	}
}
