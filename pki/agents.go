package pki

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// PutAgent makes an agent known before it enrols, so that it can be listed, and
// labelled, and so that no unbound token takes its name but one with Reattach.
// For an agent that is known it replaces the labels, of which there may be 64.
func (a *Authority) PutAgent(ctx context.Context, name string, labels map[string]string) error {
	if err := a.check(); err != nil {
		return err
	}
	if err := CheckName(name); err != nil {
		return err
	}
	if len(labels) > maxLabels {
		return fmt.Errorf("pki: agent %s: %d labels; at most %d", name, len(labels), maxLabels)
	}
	err := a.Store.Update(ctx, func(tx Tx) error {
		agent, err := knownAgent(tx, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			agent = AgentRecord{Name: name, Created: time.Now().UTC()}
		case err != nil:
			return err
		}
		agent.Labels = maps.Clone(labels)
		return tx.PutAgent(agent)
	})
	if err != nil {
		return fmt.Errorf("pki: put agent: %w", err)
	}
	return nil
}

// Agents lists the agents that are known, by name.
func (a *Authority) Agents(ctx context.Context) ([]AgentRecord, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	var all []AgentRecord
	err := a.Store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.Agents()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pki: list agents: %w", err)
	}
	return slices.DeleteFunc(all, func(r AgentRecord) bool { return !r.Removed.IsZero() }), nil
}

// RemoveAgent revokes an agent as [Authority.Revoke] does and forgets it: its
// name is free for another. The error matches fs.ErrNotExist when the agent is
// not known.
func (a *Authority) RemoveAgent(ctx context.Context, name, reason string) ([]CertificateRecord, error) {
	return a.revoke(ctx, Revocation{Agent: name, Reason: reason}, func(tx Tx, now time.Time) error {
		agent, err := knownAgent(tx, name)
		if err != nil {
			return err
		}
		agent.Removed, agent.Forget = now, now.Add(remember)
		return tx.PutAgent(agent)
	})
}

// knownAgent finds an agent that was not removed.
func knownAgent(tx Tx, name string) (AgentRecord, error) {
	agent, err := tx.Agent(name)
	if err == nil && !agent.Removed.IsZero() {
		return AgentRecord{}, fmt.Errorf("pki: agent %s was removed at %s: %w", name, agent.Removed.Format(time.RFC3339), fs.ErrNotExist)
	}
	return agent, err
}
