package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
)

// place is a line of a file.
type place struct {
	file *textFile
	line int // from 0
}

type textFile struct {
	name  string
	lines []string
}

// repeatedBlocks looks for the longest run of lines that stands in two places. It
// tries pairs of equal lines at random, and there is always another pair to try:
// it goes on until its context ends, and returns the best so far.
func repeatedBlocks(ctx context.Context, dir string) (string, error) {
	same, err := equalLines(ctx, dir)
	if err != nil {
		return "", err
	}
	best, tried := "none", 0
	for length := 0; len(same) > 0 && ctx.Err() == nil; tried++ {
		places := same[rand.IntN(len(same))]
		i, j := rand.IntN(len(places)), rand.IntN(len(places))
		if i == j {
			continue
		}
		if a, b, n := block(places[i], places[j]); n > length {
			length = n
			best = fmt.Sprintf("%s:%d and %s:%d, %d lines", a.file.name, a.line+1, b.file.name, b.line+1, n)
		}
	}
	<-ctx.Done() // also when no line stands twice
	return fmt.Sprintf("%d pairs tried; longest block: %s", tried, best), context.Cause(ctx)
}

// equalLines are the places of each line that stands in more than one, short
// lines left out: every file has its closing braces.
func equalLines(ctx context.Context, dir string) ([][]place, error) {
	const short = 20
	byText := map[string][]place{}
	var texts []string // in the order of the files
	err := eachFile(ctx, dir, func(name string, text []byte, _ error) {
		f := &textFile{name, strings.Split(string(text), "\n")}
		for i, line := range f.lines {
			f.lines[i] = strings.TrimSpace(line)
			if len(f.lines[i]) >= short {
				if byText[f.lines[i]] == nil {
					texts = append(texts, f.lines[i])
				}
				byText[f.lines[i]] = append(byText[f.lines[i]], place{f, i})
			}
		}
	})
	var same [][]place
	for _, text := range texts {
		if places := byText[text]; len(places) > 1 {
			same = append(same, places)
		}
	}
	return same, err
}

// block extends two equal lines to the block around them: where it begins, and how
// many lines it has. A block does not overlap itself.
func block(a, b place) (place, place, int) {
	begin, end := 0, 1
	apart := func(n int) bool { return a.file != b.file || n <= max(a.line-b.line, b.line-a.line) }
	for equal(a, b, begin-1) && apart(end-begin+1) {
		begin--
	}
	for equal(a, b, end) && apart(end-begin+1) {
		end++
	}
	return place{a.file, a.line + begin}, place{b.file, b.line + begin}, end - begin
}

func equal(a, b place, offset int) bool {
	i, j := a.line+offset, b.line+offset
	return i >= 0 && j >= 0 && i < len(a.file.lines) && j < len(b.file.lines) && a.file.lines[i] == b.file.lines[j]
}
