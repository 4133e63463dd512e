//go:build race

package main

// What the race detector allocates besides depends on what else the machine does.
func init() { looked = []string{"notifications"} }
