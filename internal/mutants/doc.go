// Package mutants holds a test of the tests: it breaks the core on purpose, one
// line at a time, and sees that the storm or the tests notice.
//
//	go test ./internal/mutants -mutants
package mutants
