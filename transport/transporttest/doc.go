// Package transporttest proves that an implementation of package transport keeps
// its promises. The transports of this module pass it; one of your own should
// too:
//
//	func TestTransport(t *testing.T) {
//		transporttest.Run(t, transporttest.Harness{Connect: connect})
//	}
//
//	func BenchmarkTransport(b *testing.B) {
//		transporttest.Benchmark(b, transporttest.Harness{Connect: connect})
//	}
//
// where connect makes one connection, over real sockets if the transport uses
// them, and returns its two sides as a [Pair].
//
// Each promise is a subtest and says in a sentence what broke. Every test has
// limits in time, so that a transport that hangs fails and tells where it hangs.
// Run with -race as well: some of the tests look for data races and find them
// only then.
//
// A promise that a transport cannot keep is skipped by a field of [Skip] that
// holds the reason. Its tests run all the same, and if all of them pass, the
// skip is out of date and fails the run.
//
// # Not here
//
// What a transport does beyond the interfaces is for its own tests: the rejection
// of peers without a certificate, limits other than that on streams, proxies,
// hostile input on the wire, and the time it takes to notice a silent peer.
package transporttest
