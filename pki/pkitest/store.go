package pkitest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outgate/outgate/pki"
)

// TestStore proves the contract of pki.Store. open returns an empty store and
// arranges for it to be closed.
func TestStore(t *testing.T, open func(t *testing.T) pki.Store) {
	for _, promise := range []struct {
		name string
		test func(t *testing.T, s pki.Store)
	}{
		{"a missing record is fs.ErrNotExist", missing},
		{"a record comes back as it was put", roundTrip},
		{"an update that fails stores nothing", rollback},
		{"an update reads what it has put", readYourWrites},
		{"a put inside View fails", readOnlyView},
		{"a put replaces the record", replace},
		{"certificates are listed by agent and by time", listing},
		{"grants are listed by agent and by time", grantListing},
		{"agents are listed by name", agentListing},
		{"revocations are numbered in order", numbers},
		{"a number that was seen has no smaller one to come", numbersInOrder},
		{"a revoked key is found", revokedKeys},
		{"the last number is never forgotten", lastNumber},
		{"records are copies", copies},
		{"a certificate stays with its agent", agentIsFixed},
		{"updates are serializable", serializable},
		{"one token makes one identity", oneIdentity},
		{"a canceled context stores nothing", canceled},
	} {
		t.Run(promise.name, func(t *testing.T) { promise.test(t, open(t)) })
	}
}

var start = time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)

func grant(id string) pki.GrantRecord {
	return pki.GrantRecord{
		ID:         id,
		SecretHash: []byte{1, 2, 3},
		Agent:      "edge",
		Labels:     map[string]string{"site": "Zürich"},
		OnlyKey:    []byte{9, 8, 7},
		Networks:   []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Created:    start,
		Expires:    start.Add(time.Hour),
		Forget:     start.Add(100 * 365 * 24 * time.Hour),
	}
}

func certificate(serial, agent string, age time.Duration) pki.CertificateRecord {
	return pki.CertificateRecord{
		Serial:   serial,
		Agent:    agent,
		KeyHash:  []byte{4, 5, 6},
		Raw:      []byte{7, 8, 9},
		Previous: "00",
		Grant:    "g",
		Created:  start.Add(-age),
		NotAfter: start.Add(time.Hour),
		Forget:   start.Add(100 * 365 * 24 * time.Hour),
	}
}

func agent(name string) pki.AgentRecord {
	return pki.AgentRecord{
		Name:     name,
		Labels:   map[string]string{"site": "Zürich"},
		Created:  start,
		Hostname: "host",
		Metadata: map[string]string{"os": "plan9"},
		Enrolled: start.Add(time.Minute),
	}
}

func missing(t *testing.T, s pki.Store) {
	view(t, s, func(tx pki.Tx) error {
		if _, err := tx.Grant("nobody"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Grant: %v, want fs.ErrNotExist", err)
		}
		if _, err := tx.Certificate("nobody"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Certificate: %v, want fs.ErrNotExist", err)
		}
		if all, err := tx.Certificates("nobody"); err != nil || len(all) != 0 {
			t.Errorf("Certificates: %v, %v, want none", all, err)
		}
		if _, err := tx.Agent("nobody"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Agent: %v, want fs.ErrNotExist", err)
		}
		if _, err := tx.KeyRevocation([]byte{1}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("KeyRevocation: %v, want fs.ErrNotExist", err)
		}
		if all, err := tx.Agents(); err != nil || len(all) != 0 {
			t.Errorf("Agents: %v, %v, want none", all, err)
		}
		if all, err := tx.Revocations(0); err != nil || len(all) != 0 {
			t.Errorf("Revocations: %v, %v, want none", all, err)
		}
		all, err := tx.Grants("")
		if len(all) != 0 {
			t.Errorf("Grants: %v, want none", all)
		}
		return err
	})
}

func roundTrip(t *testing.T, s pki.Store) {
	g, c := grant("g"), certificate("01", "edge", 0)
	g.Burned, g.WrongSecrets, g.KeyHash, g.Serial = "why", 3, []byte{1}, "01"
	g.Reattach, g.Spent = true, start.Add(time.Second)
	c.Revoked, c.Reason = start, "stolen"
	c.Seen, c.Retired = start.Add(time.Second), start.Add(time.Minute)
	a := agent("edge")
	a.Revoked, a.Removed, a.Forget = start, start.Add(time.Second), start.Add(100*365*24*time.Hour)
	update(t, s, func(tx pki.Tx) error {
		return errors.Join(tx.PutGrant(g), tx.PutCertificate(c), tx.PutAgent(a),
			tx.PutGrant(pki.GrantRecord{ID: "bare"}), tx.PutAgent(pki.AgentRecord{Name: "bare"}))
	})
	view(t, s, func(tx pki.Tx) error {
		if got, err := tx.Agent("edge"); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("Agent: %+v, %v\nwant %+v", got, err, a)
		}
		if got, err := tx.Grant("g"); err != nil || !reflect.DeepEqual(got, g) {
			t.Errorf("Grant: %+v, %v\nwant %+v", got, err, g)
		}
		got, err := tx.Certificate("01")
		if !reflect.DeepEqual(got, c) {
			t.Errorf("Certificate: %+v\nwant %+v", got, c)
		}
		return err
	})
}

func rollback(t *testing.T, s pki.Store) {
	stop := errors.New("stop")
	err := s.Update(t.Context(), func(tx pki.Tx) error {
		if err := errors.Join(tx.PutGrant(grant("g")), tx.PutCertificate(certificate("01", "edge", 0)),
			tx.PutAgent(agent("edge")), tx.AddRevocation(pki.RevocationRecord{KeyHash: []byte{1}})); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("Update: %v, want the function's error", err)
	}
	missing(t, s)
}

func readYourWrites(t *testing.T, s pki.Store) {
	update(t, s, func(tx pki.Tx) error { return tx.PutCertificate(certificate("01", "edge", 0)) })
	update(t, s, func(tx pki.Tx) error {
		changed := certificate("01", "edge", 0)
		changed.Reason = "changed"
		err := errors.Join(tx.PutGrant(grant("g")), tx.PutCertificate(changed), tx.PutCertificate(certificate("02", "edge", time.Hour)),
			tx.PutAgent(agent("edge")), tx.AddRevocation(pki.RevocationRecord{KeyHash: []byte{1}}))
		if err != nil {
			return err
		}
		if all, err := tx.Agents(); err != nil || len(all) != 1 {
			t.Errorf("Agents: %v, %v, want one", all, err)
		}
		if all, err := tx.Revocations(0); err != nil || len(all) != 1 {
			t.Errorf("Revocations: %v, %v, want one", all, err)
		}
		if _, err := tx.KeyRevocation([]byte{1}); err != nil {
			t.Errorf("KeyRevocation: %v", err)
		}
		if _, err := tx.Grant("g"); err != nil {
			t.Errorf("Grant: %v", err)
		}
		if all, err := tx.Grants(""); err != nil || len(all) != 1 {
			t.Errorf("Grants: %v, %v, want one", all, err)
		}
		all, err := tx.Certificates("edge")
		if err == nil && (len(all) != 2 || all[0].Serial != "02" || all[1].Reason != "changed") {
			t.Errorf("Certificates: %+v, want the new one and the changed one", all)
		}
		return err
	})
}

func readOnlyView(t *testing.T, s pki.Store) {
	view(t, s, func(tx pki.Tx) error {
		if tx.PutGrant(grant("g")) == nil || tx.PutCertificate(certificate("01", "edge", 0)) == nil ||
			tx.PutAgent(agent("edge")) == nil || tx.AddRevocation(pki.RevocationRecord{KeyHash: []byte{1}}) == nil {
			t.Error("put inside View: no error")
		}
		return nil
	})
	missing(t, s)
}

func replace(t *testing.T, s pki.Store) {
	update(t, s, func(tx pki.Tx) error { return tx.PutGrant(grant("g")) })
	changed := grant("g")
	changed.Agent, changed.Labels, changed.Serial = "", nil, "01"
	update(t, s, func(tx pki.Tx) error { return tx.PutGrant(changed) })
	view(t, s, func(tx pki.Tx) error {
		all, err := tx.Grants("")
		if err == nil && !reflect.DeepEqual(all, []pki.GrantRecord{changed}) {
			t.Errorf("Grants: %+v\nwant %+v", all, changed)
		}
		return err
	})
}

func copies(t *testing.T, s pki.Store) {
	g := grant("g")
	update(t, s, func(tx pki.Tx) error {
		err := tx.PutGrant(g)
		g.SecretHash[0], g.Labels["site"] = 99, "elsewhere"
		return err
	})
	for range 2 {
		view(t, s, func(tx pki.Tx) error {
			got, err := tx.Grant("g")
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(got, grant("g")) {
				t.Errorf("Grant: %+v\nwant %+v", got, grant("g"))
			}
			got.SecretHash[0], got.Labels["site"] = 99, "elsewhere"
			return nil
		})
	}
}

func agentIsFixed(t *testing.T, s pki.Store) {
	update(t, s, func(tx pki.Tx) error { return tx.PutCertificate(certificate("01", "edge", 0)) })
	err := s.Update(t.Context(), func(tx pki.Tx) error { return tx.PutCertificate(certificate("01", "core", 0)) })
	if err == nil {
		t.Error("a certificate moved to another agent")
	}
}

func serializable(t *testing.T, s pki.Store) {
	const workers, rounds = 8, 25
	update(t, s, func(tx pki.Tx) error { return tx.PutGrant(grant("g")) })
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for r := range rounds {
				err := s.Update(t.Context(), func(tx pki.Tx) error {
					g, err := tx.Grant("g")
					if err != nil {
						return err
					}
					g.WrongSecrets++
					return errors.Join(tx.PutGrant(g), tx.PutCertificate(certificate(fmt.Sprintf("%02d%02d", w, r), "edge", 0)))
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
				err = s.View(t.Context(), func(tx pki.Tx) error {
					g, err := tx.Grant("g")
					if err != nil {
						return err
					}
					all, err := tx.Certificates("edge")
					if err == nil && len(all) != g.WrongSecrets {
						t.Errorf("view saw %d certificates after %d updates", len(all), g.WrongSecrets)
					}
					return err
				})
				if err != nil {
					t.Errorf("View: %v", err)
				}
			}
		})
	}
	wg.Wait()
	view(t, s, func(tx pki.Tx) error {
		g, err := tx.Grant("g")
		if g.WrongSecrets != workers*rounds {
			t.Errorf("counted %d, want %d", g.WrongSecrets, workers*rounds)
		}
		return err
	})
}

// oneIdentity lets many agents redeem one token at the same time.
func oneIdentity(t *testing.T, s pki.Store) {
	const rivals = 200
	signer, cert, err := pki.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	a := &pki.Authority{Signer: signer, Certificate: cert, Store: s}
	token, err := a.Grant(t.Context(), pki.Grant{})
	if err != nil {
		t.Fatal(err)
	}
	var admitted atomic.Int32
	var wg sync.WaitGroup
	for range rivals {
		wg.Go(func() {
			_, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), a, pki.Registration{Token: token})
			switch {
			case err == nil:
				admitted.Add(1)
			case !errors.Is(err, &pki.RegistrationError{}):
				t.Errorf("Enroll: %v", err)
			}
		})
	}
	wg.Wait()
	view(t, s, func(tx pki.Tx) error {
		all, err := tx.Certificates("")
		if err == nil && (admitted.Load() != 1 || len(all) != 1) {
			t.Errorf("%d agents were admitted and %d certificates issued, want one", admitted.Load(), len(all))
		}
		return err
	})
}

func canceled(t *testing.T, s pki.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Update(ctx, func(tx pki.Tx) error { return tx.PutGrant(grant("g")) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Update: %v, want context.Canceled", err)
	}
	missing(t, s)
}

func update(t *testing.T, s pki.Store, f func(pki.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), f); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func view(t *testing.T, s pki.Store, f func(pki.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), f); err != nil {
		t.Fatalf("View: %v", err)
	}
}
