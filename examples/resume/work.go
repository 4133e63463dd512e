package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/seed-48fd9ae4/subagent"
)

// logs are what a child is asked to read.
var logs = map[string]string{
	"read the log of billing": `09:12 billing 4.1 is deployed
09:15 answers take 3 s
09:16 alert: invoices queue up
09:31 billing 4.0 is deployed
09:44 all clear`,
	"read the log of mail": `08:50 a certificate runs out
09:10 alert: no mail goes out
09:20 all clear`,
}

// entry is a line of a log that was read.
type entry struct {
	at   time.Time
	text string
}

// questions can be asked about a log once it was read.
var questions = map[string]func([]entry) string{
	"what came right before the alert?": func(log []entry) string {
		return log[find(log, "alert")-1].text
	},
	"how long from the alert to the end?": func(log []entry) string {
		return log[find(log, "all clear")].at.Sub(log[find(log, "alert")].at).String()
	},
}

func find(log []entry, what string) int {
	for i, e := range log {
		if strings.HasPrefix(e.text, what) {
			return i
		}
	}
	return len(log) - 1
}

// work is the child: a turn that reads a log, or one that answers from what the session
// has read before. What it returns as History is there in the session's next turn.
func work(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	log, read := turn.History.([]entry)
	answer, known := questions[turn.Text]
	switch text, ok := logs[turn.Text]; {
	case ok:
		log = parse(text)
		err := think(ctx, time.Second)
		return subagent.Result{Text: fmt.Sprintf("%d lines, the last at %s", len(log), log[len(log)-1].at.Format("15:04")), History: log}, err
	case known && read:
		return subagent.Result{Text: answer(log)}, think(ctx, 200*time.Millisecond)
	}
	return subagent.Result{}, fmt.Errorf("nothing was read that tells: %q", turn.Text)
}

func parse(text string) (log []entry) {
	for line := range strings.Lines(text) {
		at, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		clock, err := time.Parse("15:04", at)
		if err != nil {
			panic("a log of this program is broken: " + err.Error())
		}
		log = append(log, entry{clock, what})
	}
	return log
}

// think takes a while, as a model would.
func think(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
