package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// figure is one line of the table. A gate is missed when the value is over it;
// 0 means that there is none.
type figure struct {
	name      string
	n         int
	value     float64
	unit      string
	reference float64 // what the ratio is taken to; 0: none
	gate      float64
	target    float64
	ratio     bool // gate and target are for the ratio
}

func (f figure) judged() float64 {
	if f.ratio {
		return f.value / f.reference
	}
	return f.value
}

func (f figure) missed() bool { return f.gate != 0 && f.judged() > f.gate }

func (f figure) verdict() string {
	switch {
	case f.missed():
		return "MISSED"
	case f.target != 0 && f.judged() > f.target:
		return "over target"
	case f.gate != 0:
		return "ok"
	}
	return ""
}

// report prints the table and returns how many gates were missed.
func report(w io.Writer, figures []figure) (missed int) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tN\tours\treference\tratio\tgate\ttarget\t")
	for _, f := range figures {
		reference, ratio := "", ""
		if f.reference != 0 {
			reference, ratio = number(f.reference), fmt.Sprintf("%.2fx", f.value/f.reference)
		}
		fmt.Fprintf(t, "%s\t%d\t%s %s\t%s\t%s\t%s\t%s\t%s\n",
			f.name, f.n, number(f.value), f.unit, reference, ratio, f.bound(f.gate), f.bound(f.target), f.verdict())
		if f.missed() {
			missed++
		}
	}
	t.Flush()
	return missed
}

func (f figure) bound(v float64) string {
	switch {
	case v == 0:
		return ""
	case f.ratio:
		return fmt.Sprintf("%.2gx", v)
	}
	return number(v)
}

func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
