package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outgate/outgate/pki"
)

// agentInfo is one element of the answer of GET /agents.
type agentInfo struct {
	Name     string    `json:"name"`
	Status   string    `json:"status"`             // active, disconnected, expected, expired or revoked
	Since    time.Time `json:"since,omitzero"`     // when it connected
	Remote   string    `json:"remote,omitempty"`   // where it connected from
	Software string    `json:"software,omitempty"` // as it says
	Hostname string    `json:"hostname,omitempty"` // as it said when it enrolled
	NotAfter time.Time `json:"not_after,omitzero"` // of its newest certificate
}

// listAgents joins who was admitted with who is connected.
func (a *admin) listAgents(ctx context.Context) ([]agentInfo, error) {
	agents := map[string]agentInfo{}
	err := a.store.View(ctx, func(tx pki.Tx) error {
		clear(agents) // the store may call this again
		known, err := tx.Agents()
		if err != nil {
			return err
		}
		for _, r := range known {
			if r.Removed.IsZero() {
				agents[r.Name] = agentInfo{Name: r.Name, Status: "expected", Hostname: r.Hostname}
			}
		}
		certificates, err := tx.Certificates("")
		for _, c := range certificates { // oldest first: the newest stays
			entry, ok := agents[c.Agent]
			if !ok {
				continue
			}
			entry.Status, entry.NotAfter = "disconnected", c.NotAfter
			switch {
			case !c.Revoked.IsZero():
				entry.Status = "revoked"
			case time.Now().After(c.NotAfter):
				entry.Status = "expired"
			}
			agents[c.Agent] = entry
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, s := range a.tunnel.Sessions() {
		info := s.Agent()
		entry := agents[info.ID]
		entry.Name, entry.Status = info.ID, "active"
		entry.Since, entry.Software = info.Since, info.Software
		entry.Remote = info.RemoteAddr.String()
		agents[info.ID] = entry
	}
	return slices.SortedFunc(maps.Values(agents), func(a, b agentInfo) int { return cmp.Compare(a.Name, b.Name) }), nil
}

func agentsCommand(p *paths) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List the agents and whether they are connected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var agents []agentInfo
			if err := newClient(p).call(cmd.Context(), http.MethodGet, "/agents", nil, &agents); err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(agents)
			}
			return printAgents(cmd.OutOrStdout(), agents)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(revokeCommand(p, "agent", "/agents/"))
	return cmd
}

func printAgents(w io.Writer, agents []agentInfo) error {
	if len(agents) == 0 {
		_, err := fmt.Fprintln(w, `no agents yet; admit one with "gateway token create"`)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATUS\tCONNECTED\tFROM\tCERTIFICATE UNTIL\tSOFTWARE")
	for _, a := range agents {
		connected := "-"
		if !a.Since.IsZero() {
			connected = time.Since(a.Since).Round(time.Second).String()
		}
		until := "-"
		if !a.NotAfter.IsZero() {
			until = a.NotAfter.Format(time.DateOnly)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", a.Name, a.Status, connected,
			cmp.Or(a.Remote, "-"), until, cmp.Or(a.Software, "-"))
	}
	return table.Flush()
}
