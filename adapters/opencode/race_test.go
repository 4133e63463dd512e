//go:build race

package opencode_test

import "flag"

// The race detector looks at every byte: a gigabyte is a sixteenth of one here, still far
// more than may be held, and there are fewer random mixes.
func init() {
	huge = 1 << 26
	_ = flag.Set("net.seeds", "20")
}
