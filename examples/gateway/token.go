package main

import (
	"fmt"
	"io"
	"net/http"
	"text/template"
	"time"

	"github.com/spf13/cobra"
)

func pinCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:   "pin",
		Short: "Print the pin by which agents know this gateway",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var info gatewayInfo
			if err := newClient(p).call(cmd.Context(), http.MethodGet, "/gateway", nil, &info); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), info.Pin)
			return nil
		},
	}
}

func tokenCommand(p *paths) *cobra.Command {
	var req tokenRequest
	var quiet bool
	create := &cobra.Command{
		Use:   "create",
		Short: "Mint a token that admits one agent, once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var reply tokenReply
			if err := newClient(p).call(cmd.Context(), http.MethodPost, "/tokens", req, &reply); err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(cmd.OutOrStdout(), reply.Token)
				return nil
			}
			return printInstructions(cmd.OutOrStdout(), req, reply)
		},
	}
	create.Flags().StringVar(&req.Agent, "agent", "", "the only name that it may take (default any that is free)")
	create.Flags().DurationVar(&req.TTL, "ttl", 15*time.Minute, "how long the token is good")
	create.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token alone")
	token := &cobra.Command{Use: "token", Short: "Tokens that admit agents"}
	token.AddCommand(create, tokenListCommand(p), revokeCommand(p, "token", "/tokens/"))
	return token
}

// instructions never put the token on a command line, where every user of the
// machine could read it.
var instructions = template.Must(template.New("").Parse(`The token is good once{{with .Agent}} and for agent {{.}} only{{end}}, for {{.TTL}}:

  {{.Token}}

On the agent's machine, write this to agent.yaml:

  gateways: ["{{.Gateway.URL}}"]
  pins: ["{{.Gateway.Pin}}"]
{{- with .Agent}}
  name: {{.}}
{{- end}}
  token_file: "-"
  state_dir: agent-state
  policy:
    enable_access_restrictions: true
    allowed_endpoints: []  # such as "db.internal:5432"

Then run this, and paste the token at its first start:

  agent run --config agent.yaml
`))

func printInstructions(w io.Writer, req tokenRequest, reply tokenReply) error {
	return instructions.Execute(w, struct {
		tokenRequest
		tokenReply
	}{req, reply})
}
