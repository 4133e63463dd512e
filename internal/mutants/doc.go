// Package mutants holds a test of the tests: it breaks the core on purpose, one
// line at a time, and sees that the test that the table names notices.
//
//	go test ./internal/mutants -mutants
//
// A new row may name "": the error then says which test notices it, or that it lives.
package mutants
