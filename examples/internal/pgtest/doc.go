// Package pgtest starts a real PostgreSQL for a test: TLS from a throw-away
// authority, passwords by SCRAM, nothing that outlives the test.
//
//	pg := pgtest.Start(t)
//	conn, err := pgx.Connect(t.Context(), pg.DSN())
//
// It needs the server's programs (apt install postgresql) and fails the test
// without them. PostgreSQL refuses to run as root, so root runs it as the user
// postgres.
//
// # Not here
//
// Roles, schemas and data: the test makes its own with [Server.User], which is
// a superuser.
package pgtest
