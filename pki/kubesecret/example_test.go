package kubesecret_test

import (
	"context"
	"log"
	"os"
	"strings"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/pki/kubesecret"
)

// An agent in a pod. The token is mounted from another Secret, which the chart
// made, and is needed at the first start only.
func Example() {
	ctx := context.Background()
	storage, err := kubesecret.InCluster("outgate-agent", os.Getenv)
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile("/etc/outgate/token")
	if err != nil {
		log.Fatal(err)
	}
	token, err := pki.ParseToken(strings.TrimSpace(string(text)))
	if err != nil {
		log.Fatal(err)
	}
	client := &pki.Client{Gateway: "https://gateway.example.com"}
	identity, err := pki.Enroll(ctx, storage, client, pki.Registration{Token: token})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(identity.Run(ctx, client))
}
