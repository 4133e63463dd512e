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

// printf prints one line of what happens, with the time since the start.
func (p *parent) printf(format string, args ...any) {
	fmt.Fprintf(p.out, "\n%s  %s\n", seconds(time.Since(p.began)), fmt.Sprintf(format, args...))
}

// printStatus shows every child that has not ended.
func (p *parent) printStatus() {
	live := p.manager.Pending(me).Live
	p.printf("status: %d ended, %d to come", len(p.tasks)-live, live)
	table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	for _, t := range p.manager.List(subagent.Filter{Parent: me}) {
		switch {
		case t.Status.Terminal():
		case t.Position > 0:
			fmt.Fprintf(table, "  %s\t%s\t#%d in queue\t%s\n", t.Agent, t.Status, t.Position, t.Description)
		default:
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", t.Agent, t.Status, seconds(time.Since(t.Started)), t.Description)
		}
	}
}

// printNews says in one line what the parent was told while others run.
func (p *parent) printNews(n subagent.Notification) {
	var news []string
	for _, notice := range n.Notices {
		news = append(news, fmt.Sprintf("%s (%s)", notice.Description, notice.Status))
	}
	p.printf("notification: %s; %d to come", strings.Join(news, ", "), n.Remaining)
}

// printFinal prints the final notification as the parent's model would read it.
func (p *parent) printFinal(n subagent.Notification) {
	p.printf("final notification")
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
