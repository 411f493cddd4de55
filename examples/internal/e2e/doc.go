// Package e2e proves the whole of Outgate with a real PostgreSQL: gateway, agent
// and database talk over real sockets, the agent has enrolled with a token, and
// the driver verifies the database's own certificate through the tunnel. Each
// promise holds by WebSocket and by QUIC. There is nothing in it but tests:
//
//	go test ./internal/e2e
package e2e
