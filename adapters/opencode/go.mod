module github.com/seed-48fd9ae4/subagent/adapters/opencode

go 1.25.0

require (
	github.com/seed-48fd9ae4/subagent v0.0.0
	github.com/stretchr/testify v1.12.1
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace github.com/seed-48fd9ae4/subagent => ../..
