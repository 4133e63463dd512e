package main

import (
	"regexp"
	"strings"
	"unicode"
)

// escapes are what terminals take for orders: colours and moves of the cursor, titles,
// links and the clipboard, character sets.
var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]`)

// clean makes text of somebody else fit for one line of a terminal: without what moves
// the cursor, colours, hides or turns around, and at most so many characters long.
func clean(text string, most int) string {
	text = escapes.ReplaceAllString(strings.ToValidUTF8(text, ""), "")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r): // control, format and bidirectional characters
			return -1
		}
		return r
	}, text)
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}

// lastLine is the line that is being written, without a blank end.
func lastLine(text string) string {
	text = strings.TrimRight(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
