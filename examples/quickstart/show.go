package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// printStatus shows the limits, and every child that has not ended.
func (p *parent) printStatus() {
	live := p.manager.Pending(me).Live
	fmt.Fprintf(p.out, "\nstatus: %d ended", len(p.tasks)-live)
	for _, k := range p.manager.Stats().Keys {
		if k.Key.Kind == subagent.AgentKey {
			fmt.Fprintf(p.out, "; %s %d of %d, %d waiting", k.Key, k.Held, k.Limit, k.Waiting)
		}
	}
	fmt.Fprintln(p.out)
	table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	for _, t := range p.manager.List(subagent.Filter{Parent: me}) {
		switch {
		case t.Status.Terminal():
		case t.Position > 0:
			fmt.Fprintf(table, "  %s\t%s\t#%d in queue\t%s\n", t.Status, t.Key, t.Position, t.Description)
		default:
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", t.Status, t.Key, seconds(time.Since(t.Started)), t.Description)
		}
	}
}

// printNotification prints what the parent's model would read.
func (p *parent) printNotification(n subagent.Notification) {
	byStatus := map[subagent.Status]int{}
	for _, notice := range n.Notices {
		byStatus[notice.Status]++
	}
	var counts []string
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		counts = append(counts, fmt.Sprint(byStatus[status], " ", status))
	}
	kind := fmt.Sprintf("%d to come", n.Remaining)
	if n.Final {
		kind = "final"
	}
	fmt.Fprintf(p.out, "\nnotification (%s): %s\n", kind, strings.Join(counts, ", "))
	p.printIndented("  > ", n.Text)
}

// printResults prints the whole of what every child answered.
func (p *parent) printResults() error {
	fmt.Fprintln(p.out, "\nresults")
	for _, id := range p.tasks {
		t, err := p.manager.Get(id)
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, "\n%s: %s: %s", t.Agent, t.Description, t.Status)
		if t.Reason != nil {
			fmt.Fprintf(p.out, " (%s)", t.Reason.Code)
		}
		if t.Result.Partial {
			fmt.Fprint(p.out, "; so far it had:")
		}
		fmt.Fprintln(p.out)
		p.printIndented("  ", t.Result.Text)
	}
	return nil
}

// countPackages is the parent's own work: how many lines each package has.
func (p *parent) countPackages(ctx context.Context, dir string) {
	lines := map[string]int{}
	total := 0
	for f := range goFiles(ctx, dir) {
		lines[path.Dir(f.name)] += f.lines()
		total += f.lines()
	}
	names := slices.SortedFunc(maps.Keys(lines), func(a, b string) int {
		return cmp.Or(lines[b]-lines[a], cmp.Compare(a, b))
	})
	fmt.Fprintf(p.out, "\nmeanwhile the parent counted %d lines in %d packages\n", total, len(names))
	for _, name := range names[:min(len(names), most)] {
		fmt.Fprintf(p.out, "  %6d  %s\n", lines[name], name)
	}
}

func (p *parent) printIndented(indent, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(p.out, strings.TrimRight(indent+line, " \n"))
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
