package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
)

func forwardCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:   "forward LOCAL AGENT HOST:PORT",
		Short: "Forward a local port to a target in an agent's network",
		Long: `Forward a local port to a target in an agent's network, until interrupted.

LOCAL is a port, or an address such as 127.0.0.1:15432; a port alone is one on
loopback, and port 0 a free one. The gateway listens there for as long as this
command runs.`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			local, err := forwardAddress(args[0])
			if err != nil {
				return err
			}
			req := forwardRequest{Listen: local, Agent: args[1], Target: args[2]}
			body, err := newClient(p).open(ctx, http.MethodPost, "/forwards", req)
			if err != nil {
				return err
			}
			defer body.Close()
			for events := json.NewDecoder(body); ; {
				var event forwardEvent
				err := events.Decode(&event)
				switch {
				case ctx.Err() != nil:
					return nil // interrupted, as is usual
				case err != nil:
					return errors.New("the gateway has stopped")
				case event.Failed != "":
					fmt.Fprintln(cmd.ErrOrStderr(), "connection failed:", event.Failed)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "forwarding %s to %s through %s\n", event.Listening, req.Target, req.Agent)
				}
			}
		},
	}
}

// forwardAddress is where to listen for a forward: a port alone is one on
// loopback, since whoever reaches it reaches the target.
func forwardAddress(local string) (string, error) {
	host, port, err := net.SplitHostPort(local)
	if err != nil {
		host, port = "", local
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("LOCAL %q: use a port, or an address such as 127.0.0.1:15432", local)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}
