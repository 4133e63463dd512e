module github.com/seed-48fd9ae4/subagent/adapters/opencode

go 1.25.0

require github.com/seed-48fd9ae4/subagent v0.0.0

replace github.com/seed-48fd9ae4/subagent => ../..
