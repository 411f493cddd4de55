package pkitest

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/outgate/outgate/pki"
)

func listing(t *testing.T, s pki.Store) {
	update(t, s, func(tx pki.Tx) error {
		return errors.Join(
			tx.PutCertificate(certificate("01", "edge", 1*time.Hour)),
			tx.PutCertificate(certificate("02", "edge", 3*time.Hour)),
			tx.PutCertificate(certificate("03", "core", 2*time.Hour)),
		)
	})
	view(t, s, func(tx pki.Tx) error {
		for agent, want := range map[string][]string{"edge": {"02", "01"}, "core": {"03"}, "": {"02", "03", "01"}} {
			all, err := tx.Certificates(agent)
			if err != nil {
				return err
			}
			var got []string
			for _, c := range all {
				got = append(got, c.Serial)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Certificates(%q): %v, want %v", agent, got, want)
			}
		}
		return nil
	})
}

func grantListing(t *testing.T, s pki.Store) {
	put := func(tx pki.Tx, id, agent string, age time.Duration) error {
		g := grant(id)
		g.Agent, g.Created = agent, start.Add(-age)
		return tx.PutGrant(g)
	}
	update(t, s, func(tx pki.Tx) error {
		return errors.Join(put(tx, "a", "edge", 1*time.Hour), put(tx, "b", "edge", 3*time.Hour), put(tx, "c", "", 2*time.Hour), put(tx, "d", "edge", 0))
	})
	want := map[string][]string{"edge": {"b", "a"}, "core": {"d"}, "": {"b", "c", "a", "d"}}
	check := func(tx pki.Tx) error {
		for agent, want := range want {
			all, err := tx.Grants(agent)
			if err != nil {
				return err
			}
			var got []string
			for _, g := range all {
				got = append(got, g.ID)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Grants(%q): %v, want %v", agent, got, want)
			}
		}
		return nil
	}
	update(t, s, func(tx pki.Tx) error {
		// A record that moves is listed where it is now, inside the update too.
		return errors.Join(put(tx, "d", "core", 0), check(tx))
	})
	view(t, s, check)
}

func agentListing(t *testing.T, s pki.Store) {
	update(t, s, func(tx pki.Tx) error { return errors.Join(tx.PutAgent(agent("edge")), tx.PutAgent(agent("core"))) })
	changed := agent("edge")
	changed.Hostname = "changed"
	update(t, s, func(tx pki.Tx) error { return errors.Join(tx.PutAgent(changed), tx.PutAgent(agent("dmz"))) })
	view(t, s, func(tx pki.Tx) error {
		all, err := tx.Agents()
		if want := []pki.AgentRecord{agent("core"), agent("dmz"), changed}; err == nil && !reflect.DeepEqual(all, want) {
			t.Errorf("Agents: %+v\nwant %+v", all, want)
		}
		return err
	})
}
