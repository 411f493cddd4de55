// Package splice carries bytes between a stream of a tunnel and a connection to
// its target until both have said all they had to say:
//
//	result := splice.Join(ctx, stream, target)
//
// Each side learns of the other's end as if it had been connected directly: an
// end as an end, a half-close as a half-close, and a failure as a failure, never
// as an end.
//
// # Not here
//
// Nothing is dialled, accepted or authorised here, and nothing is resumed: a
// stream that failed stays so.
package splice
