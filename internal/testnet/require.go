package testnet

import "testing"

// RequireNamespaces ends the test if this process cannot make network namespaces: with a
// failure where they are demanded, else with a skip that says what is missing.
func RequireNamespaces(tb testing.TB, demanded bool) {
	tb.Helper()
	err := Namespaces()
	switch {
	case err == nil:
	case demanded:
		tb.Fatalf("testnet: no network namespaces: %v", err)
	default:
		tb.Skipf("not run, for there are no network namespaces: %v", err)
	}
}
