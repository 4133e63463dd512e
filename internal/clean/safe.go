package clean

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// drop is what safe returns for a character that is left out.
const drop rune = -1

// hidden are characters that show nothing, or change how others show, and are not
// of category Cf as the zero-width and bidirectional ones are: joiners, fillers,
// variation selectors, tags.
var hidden = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x034F, Hi: 0x034F, Stride: 1}, {Lo: 0x115F, Hi: 0x1160, Stride: 1},
		{Lo: 0x17B4, Hi: 0x17B5, Stride: 1}, {Lo: 0x180B, Hi: 0x180F, Stride: 1},
		{Lo: 0x2065, Hi: 0x2065, Stride: 1}, {Lo: 0x2800, Hi: 0x2800, Stride: 1}, {Lo: 0x3164, Hi: 0x3164, Stride: 1},
		{Lo: 0xFE00, Hi: 0xFE0F, Stride: 1}, {Lo: 0xFFA0, Hi: 0xFFA0, Stride: 1},
		{Lo: 0xFFF0, Hi: 0xFFFB, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x13441, Hi: 0x13442, Stride: 1}, {Lo: 0x16FE4, Hi: 0x16FE4, Stride: 1}, {Lo: 0x1D159, Hi: 0x1D159, Stride: 1}, {Lo: 0xE0000, Hi: 0xE0FFF, Stride: 1},
	},
}

// safe is what stands for a character: itself, a harmless one, or drop.
func safe(r rune) rune {
	switch {
	case r == '<':
		return '‹'
	case r == '>':
		return '›'
	case r >= '\n' && r <= '\r', r == '\u0085', r == '\u2028', r == '\u2029':
		return '\n'
	case r == '\t':
		return ' '
	case r < 0x20, r >= 0x7F && r < 0xA0:
		return drop
	case r < 0x7F, r == utf8.RuneError:
		return r
	case unicode.Is(unicode.Zs, r):
		return ' '
	case unicode.In(r, hidden, unicode.Cf, unicode.Co), r&0xFFFE == 0xFFFE, r >= 0xFDD0 && r <= 0xFDEF:
		return drop
	}
	return r
}

// escape is the length of the terminal sequence that s begins with, 0 if there is
// none: a CSI sequence (colours, the cursor), a string (titles, links, the
// clipboard) or the choice of a character set. An unfinished one is none: safe
// drops the control character, and what follows is text.
func escape(s string) int {
	switch kind, n := introducer(s); kind {
	case '[':
		n += span(s[n:], '0', '?')
		n += span(s[n:], ' ', '/')
		if span(s[n:], '@', '~') > 0 {
			return n + 1
		}
	case ']', 'P', 'X', '^', '_':
		return closed(s, n)
	case '(', ')', '*', '+':
		if span(s[n:], '0', '~') > 0 {
			return n + 1
		}
	}
	return 0
}

// introducer is what kind of sequence s may begin with, in the second character of
// its longer form: ESC and '[', or U+009B alone, is '['.
func introducer(s string) (kind byte, n int) {
	switch {
	case len(s) < 2:
		return 0, 0
	case s[0] == 0x1B:
		return s[1], 2
	case s[0] == 0xC2 && s[1] >= 0x80 && s[1] < 0xA0: // U+0080 to U+009F
		return s[1] - 0x40, 2
	}
	return 0, 0
}

// closed is the length of the string sequence whose body begins at n. Any control
// character ends the body, so that no part of s is looked at again and again.
func closed(s string, n int) int {
	i := strings.IndexFunc(s[n:], unicode.IsControl)
	if i < 0 {
		return 0
	}
	n += i
	for _, terminator := range []string{"\a", "\x1b\\", "\u009c"} {
		if strings.HasPrefix(s[n:], terminator) {
			return n + len(terminator)
		}
	}
	return 0
}

// span counts the bytes from lo to hi that s begins with.
func span(s string, lo, hi byte) (n int) {
	for n < len(s) && s[n] >= lo && s[n] <= hi {
		n++
	}
	return n
}
