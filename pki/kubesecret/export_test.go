package kubesecret

// InClusterAt is InCluster with the files of another directory.
func InClusterAt(dir, name string, getenv func(string) string) (*Storage, error) {
	return inCluster(dir, name, getenv)
}
