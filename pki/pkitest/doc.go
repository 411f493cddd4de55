// Package pkitest holds the suites that every pki.Store and pki.Storage passes.
//
//	func TestStore(t *testing.T) {
//		pkitest.TestStore(t, func(t *testing.T) pki.Store { return newSQLStore(t) })
//	}
//
// # Not here
//
// Crashes: [TestDurableStore] closes what it opens again. Whether what was
// acknowledged survives a crash, only a test that knows where an implementation
// keeps it can tell.
package pkitest
