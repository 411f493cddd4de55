//go:build linux

package netlab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/testnet"
)

// nodeEnv names the file that makes this program a gateway or an agent.
const nodeEnv = "OUTGATE_NETLAB_NODE"

func TestMain(m *testing.M) {
	if file := os.Getenv(nodeEnv); file != "" {
		os.Exit(runNode(file))
	}
	if inCI() && os.Geteuid() != 0 {
		os.Exit(asRoot())
	}
	flag.Parse()
	// These tests wait for most of their time. The full run measures, and wants quiet: the
	// carriers side by side, the tests one after the other.
	parallel := 32
	if full() {
		parallel = len(carriers)
	}
	_ = flag.Set("test.parallel", strconv.Itoa(parallel))
	goleak.VerifyTestMain(m)
}

func inCI() bool { return os.Getenv("CI") != "" }

// full reports whether every fault is to be shown often.
func full() bool { return os.Getenv("OUTGATE_NETLAB") == "1" }

// asRoot runs this program again with the rights that namespaces need. Only machines that
// exist for tests are asked that.
func asRoot() int {
	cmd := exec.Command("sudo", append([]string{"-n", "--preserve-env"}, os.Args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netlab: network namespaces need root:", err)
		return 1
	}
	return 0
}

// newLab is where every test begins.
func newLab(tb testing.TB) *testnet.Lab {
	tb.Helper()
	testnet.RequireNamespaces(tb, inCI())
	return testnet.NewLab(tb)
}
