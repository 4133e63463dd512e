package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
)

// repeatedBlocks looks for the longest run of lines that stands in two places. It
// tries pairs of equal lines at random, and there is always another pair to try:
// it goes on until its context ends, and then returns the best so far.
func repeatedBlocks(ctx context.Context, dir string) (string, error) {
	same := equalLines(ctx, dir)
	best, tried := "none", 0
	for longest := 0; len(same) > 0 && ctx.Err() == nil; tried++ {
		places := same[rand.IntN(len(same))]
		i, j := rand.IntN(len(places)), rand.IntN(len(places))
		if i == j {
			continue
		}
		if a, b, n := block(places[i], places[j]); n > longest {
			longest = n
			best = fmt.Sprintf("%d lines at %s and %s", n, a, b)
		}
	}
	<-ctx.Done() // also when no line stands twice
	return fmt.Sprintf("%d pairs tried; longest block: %s", tried, best), ctx.Err()
}

// textFile is a file by lines, without indentation.
type textFile struct {
	name  string
	lines []string
}

// place is a line of a file, counted from 0.
type place struct {
	*textFile
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.name, p.line+1) }

// equalLines are the places of each line that stands in more than one, but for
// short ones: every file has its closing braces.
func equalLines(ctx context.Context, dir string) (same [][]place) {
	const short = 20
	places := map[string][]place{}
	for f := range goFiles(ctx, dir) {
		file := &textFile{f.name, strings.Split(string(f.text), "\n")}
		for i, line := range file.lines {
			line = strings.TrimSpace(line)
			file.lines[i] = line
			if len(line) >= short {
				places[line] = append(places[line], place{file, i})
			}
		}
	}
	for _, p := range places {
		if len(p) > 1 {
			same = append(same, p)
		}
	}
	return same
}

// block extends two equal lines to the longest block around them: where it begins
// in both places, and how many lines it has. The two do not overlap.
func block(a, b place) (place, place, int) {
	begin, end := 0, 1
	room := func() bool { return a.textFile != b.textFile || end-begin < max(a.line-b.line, b.line-a.line) }
	for room() && equal(a, b, begin-1) {
		begin--
	}
	for room() && equal(a, b, end) {
		end++
	}
	a.line, b.line = a.line+begin, b.line+begin
	return a, b, end - begin
}

// equal compares the lines at the same offset from two places.
func equal(a, b place, offset int) bool {
	i, j := a.line+offset, b.line+offset
	return i >= 0 && j >= 0 && i < len(a.lines) && j < len(b.lines) && a.lines[i] == b.lines[j]
}
