package policy_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/policy"
)

func TestMain(m *testing.M) {
	inChild()
	goleak.VerifyTestMain(m)
}

func rules(tb testing.TB, document string) *policy.Rules {
	tb.Helper()
	r, err := policy.Parse(strings.NewReader(document))
	require.NoError(tb, err)
	return r
}

func target(tb testing.TB, service, address string) policy.Target {
	tb.Helper()
	t, err := policy.ParseTarget(service, address)
	require.NoError(tb, err)
	return t
}

func newRandom(tb testing.TB, seed uint64) *rand.Rand {
	tb.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}
