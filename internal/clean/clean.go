// Package clean makes text that somebody else wrote safe to put between lines of
// one's own: no markup, no control or invisible characters, a bound on its size.
package clean

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// mark ends a text that was cut.
const mark = "…"

// Line makes one line of s: white space of any kind becomes single spaces. The
// result is at most max bytes long; a cut one ends in "…". max is at least 3.
func Line(s string, max int) string {
	w := writer{max: max}
	space := false
	for _, r := range s {
		switch r = safe(r); {
		case unicode.IsSpace(r):
			space = w.out.Len() > 0
		case r >= 0:
			if space && !w.write(' ') {
				return w.cut()
			}
			space = false
			if !w.write(r) {
				return w.cut()
			}
		}
	}
	return w.out.String()
}

// Block cleans s and keeps its lines, without white space at its end. Its bound
// is Line's.
func Block(s string, max int) string {
	w := writer{max: max}
	blank := 0 // white space not yet written, in bytes of s
	begin := 0 // where it begins
	for i, r := range s {
		c := safe(r)
		switch {
		case c == ' ' || c == '\n' || c == '\t':
			if blank == 0 {
				begin = i
			}
			blank = i + utf8.RuneLen(r) - begin
		case c >= 0:
			if blank > 0 && !w.blanks(s[begin:begin+blank]) || !w.write(c) {
				return w.cut()
			}
			blank = 0
		}
	}
	return w.out.String()
}

// writer collects runes up to a bound.
type writer struct {
	out strings.Builder
	max int
}

func (w *writer) write(r rune) bool {
	if w.out.Len()+utf8.RuneLen(r) > w.max {
		return false
	}
	w.out.WriteRune(r)
	return true
}

// blanks writes white space: line breaks as they are, all else as spaces.
func (w *writer) blanks(s string) bool {
	for _, r := range s {
		switch r = safe(r); {
		case r == '\n':
		case r >= 0:
			r = ' '
		default:
			continue
		}
		if !w.write(r) {
			return false
		}
	}
	return true
}

// cut ends the text with the mark, within the bound.
func (w *writer) cut() string {
	s := w.out.String()
	for len(s) > 0 && len(s)+len(mark) > w.max {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimRight(s, " \n"+mark) + mark
}

// drop is what safe returns for a character that is left out.
const drop rune = -1

// hidden are characters that show nothing, or change how others show: soft
// hyphen, joiners and zero-width spaces, bidirectional controls, variation
// selectors, tags, and the like that are not of category Cf.
var hidden = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x034F, Hi: 0x034F, Stride: 1}, {Lo: 0x115F, Hi: 0x1160, Stride: 1},
		{Lo: 0x17B4, Hi: 0x17B5, Stride: 1}, {Lo: 0x180B, Hi: 0x180F, Stride: 1},
		{Lo: 0x3164, Hi: 0x3164, Stride: 1}, {Lo: 0xFE00, Hi: 0xFE0F, Stride: 1},
		{Lo: 0xFFA0, Hi: 0xFFA0, Stride: 1}, {Lo: 0xFFF0, Hi: 0xFFFB, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0xE0000, Hi: 0xE0FFF, Stride: 1}},
}

// safe is what stands for a character: itself, a harmless one, or drop.
func safe(r rune) rune {
	switch {
	case r == '<':
		return '‹'
	case r == '>':
		return '›'
	case r == '\n', r == '\u2028', r == '\u2029', r == '\u0085', r == '\v', r == '\f':
		return '\n'
	case r == '\t':
		return ' '
	case r < 0x20, r >= 0x7F && r < 0xA0:
		return drop
	case r < 0x7F:
		return r
	case r == utf8.RuneError:
		return r
	case unicode.Is(unicode.Zs, r):
		return ' '
	case unicode.In(r, hidden, unicode.Cf, unicode.Co, unicode.Cs), r&0xFFFE == 0xFFFE, r >= 0xFDD0 && r <= 0xFDEF:
		return drop
	}
	return r
}
