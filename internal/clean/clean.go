// Package clean makes text that somebody else wrote safe to put between lines of
// one's own: no markup, no control or invisible characters, a bound on its size.
// What it returns is valid UTF-8, and cleaning it again changes nothing.
package clean

import (
	"strings"
	"unicode/utf8"
)

// mark ends a text that was cut.
const mark = "…"

// Line makes one line of s: white space of any kind becomes single spaces, and
// none is left at either end. The result is at most max bytes long; a cut one ends
// in "…". Where max has no room for that mark, what does not fit becomes "".
func Line(s string, max int) string {
	if plain(s, max, ' ') {
		return s
	}
	line, _ := tidy(s, max, true)
	return line
}

// Block cleans s and keeps its lines, without white space at its end; tabs become
// spaces. Its bound is Line's.
func Block(s string, max int) string {
	block, _ := Whole(s, max)
	return block
}

// Whole is Block, and reports whether nothing was cut: the mark may be of s itself.
func Whole(s string, max int) (block string, whole bool) {
	if plain(s, max, '\n') {
		return s, true
	}
	return tidy(s, max, false)
}

// plain reports whether nothing is to be done: s fits and is printable ASCII, with
// single blanks between words that are ' ' or, in a block, '\n'. Most strings are
// like that, and cost no allocation.
func plain(s string, max int, blank byte) bool {
	if len(s) > max {
		return false
	}
	was := true
	for i := range len(s) {
		c := s[i]
		is := c == ' ' || c == blank
		if is && was || !is && (c <= ' ' || c >= 0x7F) || c == '<' || c == '>' {
			return false
		}
		was = is
	}
	return s == "" || !was
}

// tidy is the long way.
func tidy(s string, max int, oneLine bool) (safe string, whole bool) {
	in := reader{rest: s, left: enough(max)}
	out := writer{max: max}
	for r := in.next(); r != end; r = in.next() {
		switch {
		case r != ' ' && r != '\n':
			if !out.write(r) {
				return out.cut(), false
			}
		case oneLine:
			out.space()
		default:
			out.blank(r)
		}
	}
	if in.rest != "" {
		return out.cut(), false
	}
	return out.trimmed(), true
}

// enough is how many bytes of input are looked at for max bytes of output. What
// comes after so many characters that show nothing is cut like all that is too long.
func enough(max int) int { return 4<<10 + 16*min(max, 1<<24) }

// end is what a reader returns when there is no more.
const end rune = -2

// reader gives the safe characters of a text.
type reader struct {
	rest string
	left int // bytes it may still take of rest
}

func (in *reader) next() rune {
	for in.rest != "" && in.left > 0 {
		if n := escape(in.rest[:min(len(in.rest), in.left)]); n > 0 {
			in.take(n)
			continue
		}
		r, n := utf8.DecodeRuneInString(in.rest)
		in.take(n)
		if r == '\r' && strings.HasPrefix(in.rest, "\n") {
			continue // one line break, not two
		}
		if r = safe(r); r != drop {
			return r
		}
	}
	return end
}

func (in *reader) take(n int) {
	in.rest = in.rest[n:]
	in.left -= n
}

// writer collects characters up to a bound.
type writer struct {
	out strings.Builder
	max int
}

// write adds what is not white space; false if there is no room.
func (w *writer) write(r rune) bool {
	if w.out.Len()+utf8.RuneLen(r) > w.max {
		return false
	}
	w.out.WriteRune(r)
	return true
}

// blank adds white space. What has no room is left out: that is no cut unless
// something follows, and that has no room then either.
func (w *writer) blank(r rune) {
	if w.out.Len() < w.max {
		w.out.WriteRune(r)
	}
}

// space adds one blank between words.
func (w *writer) space() {
	if s := w.out.String(); s != "" && s[len(s)-1] != ' ' {
		w.blank(' ')
	}
}

func (w *writer) trimmed() string { return strings.TrimRight(w.out.String(), " \n") }

// cut ends the text with the mark, within the bound.
func (w *writer) cut() string {
	if w.max < len(mark) {
		return ""
	}
	s := w.out.String()
	for len(s)+len(mark) > w.max {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimRight(s, " \n"+mark) + mark
}
