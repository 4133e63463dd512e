// Package rules holds tests that keep the shape of the core: who writes a status,
// where goroutines start, what may happen under the lock, who imports whom, what is
// documented, how long things are. It contains no code of the library.
package rules
