package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outgate/outgate/pki"
)

func (a *admin) getTokens(w http.ResponseWriter, r *http.Request) {
	grants, err := a.authority.Grants(r.Context(), "")
	list := make([]tokenInfo, len(grants))
	for i, g := range grants {
		list[i] = tokenInfo{ID: g.ID, Agent: g.Agent, Status: g.Status(time.Now()), Created: g.Created, Expires: g.Expires}
	}
	answer(w, list, err)
}

func (a *admin) revokeToken(w http.ResponseWriter, r *http.Request) {
	var req revokeRequest
	if !read(w, r, &req) {
		return
	}
	err := a.authority.RevokeGrant(r.Context(), r.PathValue("id"), req.Reason)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("no token has the ID %q; see \"gateway token list\"", r.PathValue("id"))
	}
	answer(w, revokeReply{}, err)
}

func (a *admin) revokeAgent(w http.ResponseWriter, r *http.Request) {
	var req revokeRequest
	if !read(w, r, &req) {
		return
	}
	revoked, err := a.authority.Revoke(r.Context(), pki.Revocation{Agent: r.PathValue("name"), Reason: req.Reason})
	answer(w, revokeReply{Certificates: len(revoked)}, err)
}

func tokenListCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List tokens and what has become of them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var tokens []tokenInfo
			if err := newClient(p).call(cmd.Context(), http.MethodGet, "/tokens", nil, &tokens); err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "ID\tAGENT\tSTATUS\tCREATED\tEXPIRES")
			for _, t := range tokens {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.ID, cmp.Or(t.Agent, "-"), t.Status,
					t.Created.Local().Format(time.DateTime), t.Expires.Local().Format(time.DateTime))
			}
			return table.Flush()
		},
	}
}

// revokeCommand revokes a thing of this kind, by the route below which it is.
func revokeCommand(p *paths, kind, route string) *cobra.Command {
	var req revokeRequest
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke an agent: its connections end, its certificates and tokens are void",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var reply revokeReply
			err := newClient(p).call(cmd.Context(), http.MethodPost, route+url.PathEscape(args[0])+"/revoke", req, &reply)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s revoked; certificates that were good until now: %d\n", kind, args[0], reply.Certificates)
			return err
		},
	}
	if kind == "token" {
		cmd.Use, cmd.Short = "revoke ID", "Revoke a token; an agent that has redeemed it keeps its certificate"
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	return cmd
}
