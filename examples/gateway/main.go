// Command gateway is the reference gateway. It has an authority of its own,
// admits agents by one-time tokens, and forwards local ports through them. In a
// clone, "go install ./examples/gateway ./examples/agent" installs it and the agent.
//
//	gateway serve --state gateway-state --listen :8443 --names gateway.example.com
//	gateway token create --agent db-1
//	gateway token list
//	gateway agents
//	gateway agents revoke db-1 --reason "sold"
//	gateway forward 15432 db-1 db.internal:5432 &
//	psql -h 127.0.0.1 -p 15432 ...
//
// One TCP port serves registration, renewal and the tunnel by WebSocket; with
// --quic the UDP port of the same number serves the tunnel by QUIC. All that has
// to survive a restart is in the state directory: the authority's key, and who
// was granted and issued what.
//
// The other commands talk to the running gateway by HTTP over a unix socket in
// the state directory, which only the gateway's user may open.
//
// An interrupt or SIGTERM drains: agents are asked to go elsewhere, what is open
// has ten seconds to end. A second one ends the gateway at once.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal has its usual effect
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "gateway",
		Short:         "Reach what agents in private networks allow",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	var p paths
	root.PersistentFlags().StringVar(&p.state, "state", "gateway-state", "state directory")
	root.PersistentFlags().StringVar(&p.admin, "admin", "", "unix socket for the other commands (default admin.sock in the state directory)")
	root.AddCommand(serveCommand(&p), pinCommand(&p), tokenCommand(&p), agentsCommand(&p), forwardCommand(&p))
	return root
}

// paths are where a gateway keeps things.
type paths struct {
	state string
	admin string // empty: in state
}

func (p *paths) socket() string {
	if p.admin != "" {
		return p.admin
	}
	return filepath.Join(p.state, "admin.sock")
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
