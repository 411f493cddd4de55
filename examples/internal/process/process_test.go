package process_test

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/outgate/outgate/examples/internal/process"
)

func TestProcess(t *testing.T) {
	p := process.Start(t, exec.CommandContext(t.Context(), "sh", "-c",
		"trap 'echo bye; exit 3' TERM; echo port 1; echo port 2 >&2; while :; do sleep 0.05; done"))
	assert.Equal(t, " 1", p.WaitFor("port", 1))
	assert.Equal(t, " 2", p.WaitFor("port", 2))
	p.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, p.Wait())
	assert.Equal(t, "port 1\nport 2\nbye\n", p.Output())
}
