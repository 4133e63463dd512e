package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// looked are the beginnings of the names of counts that hold at a small size too: in
// the bytes fixed costs still show.
var looked = []string{"notifications", "allocations"}

func TestCounts(t *testing.T) {
	seen := 0
	for _, f := range counts([]int{2000}) {
		if slices.ContainsFunc(looked, func(name string) bool { return strings.HasPrefix(f.name, name) }) {
			seen++
			require.False(t, f.missed(), "%s: %v, gate %v", f.name, f.judged(), f.gate)
		}
	}
	require.GreaterOrEqual(t, seen, len(looked))
}

// A gate that is missed is counted, and a target is not.
func TestReport(t *testing.T) {
	var out strings.Builder
	require.Zero(t, report(&out, []figure{
		{name: "fine", value: 1, gate: 2, target: 1},
		{name: "over the target", value: 1.5, gate: 2, target: 1},
		{name: "no gate", value: 100},
		{name: "ratio", value: 10, reference: 5, gate: 3, ratio: true},
	}))
	require.Equal(t, 2, report(&out, []figure{
		{name: "value", value: 3, gate: 2},
		{name: "ratio", value: 10, reference: 3, gate: 3, ratio: true},
	}))
	require.Equal(t, 2, strings.Count(out.String(), "MISSED"))
	require.Equal(t, 1, strings.Count(out.String(), "over target"))
}

func BenchmarkLaunch(b *testing.B) {
	gate := make(chan struct{})
	o := manager(b.N, gate, evenly)
	parents, models := names(b.N)
	b.ReportAllocs()
	for i := range b.N {
		o.launch(parents[i/perParent], models[i%keys])
	}
	b.StopTimer()
	close(gate)
	o.wait()
	o.close()
}
