// Command bench measures the manager against the least that a manager of its kind can do,
// and against the usual way to write one, in one process and in turn.
//
//	go run ./internal/bench          all figures; a minute or two
//	go run ./internal/bench -gates   only what no clock can disturb
//
// It exits with 1 when a gate is missed. Targets are what we are after.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	gates := flag.Bool("gates", false, "only the figures that no clock can disturb")
	million := flag.Bool("million", true, "one run with a million tasks")
	runs := flag.Int("runs", 5, "runs of each contestant, of which the median counts")
	flag.Parse()
	figures := counts([]int{10_000, 100_000})
	if !*gates {
		figures = append(figures, times(*runs, *million)...)
	}
	if missed := report(os.Stdout, figures); missed > 0 {
		fmt.Printf("%d gates missed\n", missed)
		os.Exit(1)
	}
}

// counts are the figures that do not depend on a clock.
func counts(sizes []int) (figures []figure) {
	for _, n := range sizes {
		r, k := gated(newOurs, n), keep(n)
		parents := float64(n / perParent)
		figures = append(figures,
			figure{name: "allocations per task", n: n, value: r.allocs, gate: 15, target: 10},
			figure{name: "bytes allocated per task", n: n, value: r.bytes, gate: 1536, target: 900},
			figure{name: "bytes per pending task", n: n, value: k.pending, gate: 600, target: 400},
			figure{name: "bytes per kept task", n: n, value: k.ended, gate: 700, target: 450},
			figure{name: "goroutines of pending tasks", n: n, value: float64(max(k.pendingRoutines, 0)), gate: 3},
			figure{name: "goroutines of kept tasks", n: n, value: float64(max(k.endedRoutines, 0)), gate: 3},
			figure{name: "notifications, gated run", n: n, value: float64(r.told), reference: parents, gate: 1, ratio: true},
		)
	}
	n := sizes[len(sizes)-1]
	told, most := flow(n)
	together := siblings(newOursAtOnce, family)
	_, unheard := fanOut(0, n)
	_, heard := fanOut(subscribers, n)
	return append(figures,
		figure{name: "notifications, siblings that end at once", n: family, value: float64(together.told), gate: 1},
		figure{name: "notifications, open gate", n: n, value: float64(told), reference: float64(most), gate: 1, ratio: true},
		figure{name: "allocations per foreign event", n: n, value: foreign(n), gate: 0.01},
		figure{name: "allocations per event that nobody hears", n: n, value: unheard, gate: 0.01},
		figure{name: "allocations per event, 10 subscribers", n: n, value: heard, gate: 15},
	)
}

// times are the figures that do.
func times(runs int, million bool) (figures []figure) {
	var last float64
	for _, n := range []int{1000, 10_000, 100_000} {
		r := medians([]kind{newFloor, newOurs, newGoPending}, n, runs)
		base, own, usual := r[0], r[1], r[2]
		f := figure{name: "end to end per task, to the floor", n: n, value: own.perTask, unit: "ns", reference: base.perTask, ratio: true}
		if n >= 10_000 {
			f.gate, f.target = 3, 2
		}
		figures = append(figures, f,
			figure{name: "end to end, to a goroutine per pending task", n: n, value: own.perTask, unit: "ns", reference: usual.perTask, ratio: true},
			figure{name: "launch p50, to the floor", n: n, value: own.p50, unit: "ns", reference: base.p50},
		)
		tail := figure{name: "launch p99, to the floor", n: n, value: own.p99, unit: "ns", reference: base.p99, ratio: true}
		if n == 100_000 {
			tail.gate, tail.target = 3, 1.2
			figures = append(figures, figure{name: "growth per tenfold", n: n, value: own.perTask, unit: "ns", reference: last, gate: 2, ratio: true})
		}
		figures = append(figures, tail)
		last = own.perTask
	}
	if million {
		r := medians([]kind{newFloor, newOurs}, 1_000_000, 1)
		figures = append(figures,
			figure{name: "end to end per task, to the floor", n: 1_000_000, value: r[1].perTask, unit: "ns", reference: r[0].perTask, ratio: true},
			figure{name: "growth per tenfold", n: 1_000_000, value: r[1].perTask, unit: "ns", reference: last, gate: 2.5, ratio: true},
		)
	}
	return append(append(figures, parents(runs)...), single()...)
}

// parents are the figures of whoever has launched, and waits or listens.
func parents(runs int) []figure {
	var base, own []float64
	for range runs {
		base = append(base, siblings(newFloorAtOnce, family).perTask)
		own = append(own, siblings(newOursAtOnce, family).perTask)
	}
	unheard, _ := fanOut(0, 100_000)
	heard, _ := fanOut(subscribers, 100_000)
	figures := []figure{
		{name: "an ending, of siblings at once, to the floor", n: family, value: median(own), unit: "ns", reference: median(base), ratio: true},
		{name: "an event with 10 subscribers, to one without", n: 100_000, value: heard, unit: "ns", reference: unheard},
	}
	for _, r := range []struct {
		name            string
		readers, rounds int
	}{{"1 reader", 1, 500}, {"1000 readers", 1000, 5}} {
		p50, p99 := wakes(newReaders(10_000), r.readers, r.rounds)
		plain50, plain99 := wakes(&channels{}, r.readers, r.rounds)
		figures = append(figures,
			figure{name: "p50 until " + r.name + " of a run's end went on, to a channel", n: r.readers, value: p50, unit: "ns", reference: plain50},
			figure{name: "p99 until " + r.name + " of a run's end went on, to a channel", n: r.readers, value: p99, unit: "ns", reference: plain99},
		)
	}
	return figures
}

// single are the figures of single calls.
func single() []figure {
	small, big := operate(10_000), operate(100_000)
	return []figure{
		{name: "cancel in the middle of the queue", n: 100_000, value: big.cancel, unit: "ns", reference: small.cancel, gate: 10_000, target: 3000},
		{name: "find by session", n: 100_000, value: big.find, unit: "ns", reference: small.find, gate: 1000},
		{name: "list one parent's 100, to a plain copy", n: 100_000, value: big.list, unit: "ns", reference: big.copyTasks, gate: 2, ratio: true},
		{name: "list any 100, to a plain copy", n: 100_000, value: big.page, unit: "ns", reference: big.copyPage, gate: 2, ratio: true},
		{name: "list one parent's 100 that have ended, to a plain copy", n: 100_000, value: big.listEnded, unit: "ns", reference: big.copyEnded, ratio: true},
		{name: "read the last of the queue", n: 100_000, value: big.position, unit: "ns", reference: small.position},
	}
}
