// Command agent is the reference agent: it enrols at its gateway at the first
// start, then keeps a tunnel to it and lets through what its policy allows.
//
//	agent run --config agent.yaml
//
// The configuration is YAML; "gateway token create" prints one that is ready to
// use. Paths in it are relative to its own folder.
//
//	gateways: ["https://gateway.example.com:8443"] # the next one is tried when one fails
//	transport: auto           # or websocket, or quic
//	pins: ["sha256:..."]      # what "gateway pin" prints; without pins and ca_file: the system's roots
//	ca_file: ca.pem           # instead of pins
//	name: db-1                # empty: the name in the token, or one from the gateway
//	token_file: token         # needed at the first start only; "-" reads standard input
//	state_dir: agent-state    # key and certificate; made with mode 0700
//	log_level: info           # debug, info, warn or error
//	policy:                   # what may be reached; without a policy nothing may
//	  enable_access_restrictions: true
//	  allowed_endpoints: ["db.internal:5432"]
//
// An interrupt or SIGTERM drains: nothing new is let in, what is open has ten
// seconds to end. A second one ends the agent at once.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal has its usual effect
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "agent",
		Short:         "Let a gateway reach what this network's owner allows",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	var path string
	run := &cobra.Command{
		Use:   "run",
		Short: "Enrol if necessary, connect, and stay connected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := loadConfig(path)
			if err != nil {
				return err
			}
			return run(cmd.Context(), config, cmd.InOrStdin(), cmd.ErrOrStderr())
		},
	}
	run.Flags().StringVarP(&path, "config", "c", "agent.yaml", "configuration file")
	root.AddCommand(run)
	return root
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
