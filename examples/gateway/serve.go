package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// options are what the operator says to "gateway serve".
type options struct {
	*paths
	listen string
	names  []string // how agents reach this gateway; the first is in its URL
	quic   bool
	level  string
}

func serveCommand(p *paths) *cobra.Command {
	o := options{paths: p}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var level slog.Level
			if err := level.UnmarshalText([]byte(o.level)); err != nil {
				return fmt.Errorf("--log-level %q: use debug, info, warn or error", o.level)
			}
			if err := o.nameItself(); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			s, err := newServer(cmd.Context(), o, log)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "url  %s\npin  %s\n", s.url, s.pin)
			return s.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", ":8443", "address of the HTTPS port")
	flags.StringSliceVar(&o.names, "names", nil, "host names and addresses that agents dial, the first in the printed URL (default this host's name, localhost and its addresses)")
	flags.BoolVar(&o.quic, "quic", false, "also serve the tunnel by QUIC, at the UDP port of the same number")
	flags.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// nameItself chooses the names that the operator did not.
func (o *options) nameItself() error {
	if len(o.names) > 0 {
		return nil
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return errors.Join(errors.New("this host has no name; say with --names how agents reach the gateway"), err)
	}
	o.names = []string{strings.ToLower(host), "localhost", "127.0.0.1", "::1"}
	return nil
}
