package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// printStatus shows the limits, and every child that has not ended.
func printStatus(out io.Writer, manager *subagent.BackgroundManager) {
	stats := manager.Stats()
	ended := 0
	for status, n := range stats.Tasks {
		if status.Terminal() {
			ended += n
		}
	}
	fmt.Fprintf(out, "\nstatus: %d ended", ended)
	for _, k := range stats.Keys {
		if k.Key.Kind == subagent.AgentKey {
			fmt.Fprintf(out, "; %s %d of %d, %d waiting", k.Key, k.Held, k.Limit, k.Waiting)
		}
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	for _, t := range manager.List(subagent.Filter{Parent: me}) {
		switch {
		case t.Status.Terminal():
		case t.Position > 0:
			fmt.Fprintf(table, "  %s\t%s\t#%d in queue\t%s\n", t.Status, t.Key, t.Position, t.Description)
		default:
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", t.Status, t.Key, seconds(time.Since(t.Started)), t.Description)
		}
	}
}

// printNotification prints what a parent's model would read.
func printNotification(out io.Writer, n subagent.Notification) {
	by := map[subagent.Status]int{}
	for _, notice := range n.Notices {
		by[notice.Status]++
	}
	var counts []string
	for _, status := range slices.Sorted(maps.Keys(by)) {
		counts = append(counts, fmt.Sprint(by[status], " ", status))
	}
	kind := fmt.Sprintf("with %d tasks to come", n.Remaining)
	if n.Final {
		kind = "final"
	}
	fmt.Fprintf(out, "\nnotification, %s: %s\n", kind, strings.Join(counts, ", "))
	printIndented(out, "  | ", n.Text)
}

// printResults prints what every child answered, whole.
func printResults(out io.Writer, manager *subagent.BackgroundManager, tasks []subagent.TaskID) error {
	fmt.Fprintln(out, "\nresults")
	for _, id := range tasks {
		t, err := manager.Get(id)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%s: %s, %s", t.Agent, t.Description, t.Status)
		if t.Reason != nil {
			fmt.Fprintf(out, " (%s)", t.Reason.Code)
		}
		if t.Result.Partial {
			fmt.Fprint(out, "; what it had so far:")
		}
		fmt.Fprintln(out)
		printIndented(out, "  ", t.Result.Text)
	}
	return nil
}

// countPackages is the parent's own work: how many lines each package has.
func countPackages(ctx context.Context, out io.Writer, dir string) error {
	lines := map[string]int{}
	total := 0
	err := eachFile(ctx, dir, func(name string, text []byte, _ error) {
		n := countLines(text)
		lines[path.Dir(name)] += n
		total += n
	})
	if err != nil {
		return err
	}
	names := slices.SortedFunc(maps.Keys(lines), func(a, b string) int {
		return cmp.Or(lines[b]-lines[a], cmp.Compare(a, b))
	})
	fmt.Fprintf(out, "\nmeanwhile the parent counted: %d lines in %d packages\n", total, len(names))
	for _, name := range names[:min(len(names), most)] {
		fmt.Fprintf(out, "  %6d  %s\n", lines[name], name)
	}
	return nil
}

func printIndented(out io.Writer, indent, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(out, strings.TrimRight(indent+strings.TrimRight(line, "\n"), " "))
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
