// Package embed holds two programs that show how Outgate goes into software that
// exists already:
//
//	daemon  a daemon that serves its admin pages through an agent, without a port
//	server  an http.Server that has a gateway beside its own routes
//
// Together:
//
//	go run ./examples/embed/server -listen 127.0.0.1:8443      # prints its pin and the operator's password
//	curl -k -u operator:... -X POST https://127.0.0.1:8443/agents/pump-7/token >token
//	go run ./examples/embed/daemon -gateway https://127.0.0.1:8443 -pin sha256:... -token token
//	curl -k -u operator:... https://127.0.0.1:8443/agents/pump-7/status
package embed
