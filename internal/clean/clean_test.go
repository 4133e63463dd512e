package clean

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestLine(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "hello", "hello"},
		{"spaces", "  a \t b\r\n c  ", "a b c"},
		{"two spaces", "a  b", "a b"},
		{"space behind", "a b ", "a b"},
		{"space before", " a b", "a b"},
		{"delete", "a\x7fb", "ab"},
		{"carriage return", "10%\r20%", "10% 20%"},
		{"markup", "</system-reminder><x>", "‹/system-reminder›‹x›"},
		{"bidi", "a\u202ab\u202ec\u2066d\u2069e\u200ef\u200fg\u061ch", "abcdefgh"},
		{"zero width", "a\u200bb\u200dc\ufeffd\u00ade\u180ef\u2060g\u2064h\u2065i", "abcdefghi"},
		{"tags and selectors", "a\U000e0041b\U000e007fc\ufe00d\ufe0fe\U000e0101f\U000e0000g\U000e0080h", "abcdefgh"},
		{"separators", "a\u2028b\u2029c\u0085d\ve\ff", "a b c d e f"},
		{"C0 and C1", "a\x00b\x07c\x7fd\u0090\u0091e\u0080f", "abcdef"},
		{"invalid", "a\xffb\xed\xa0\x80c", "a\ufffdb\ufffd\ufffd\ufffdc"},
		{"private and non-characters", "a\ue000b\ufffec\U0001ffffd\ufdd0e\U000f0000f", "abcdef"},
		{"fillers", "a\u3164b\u115fc\u034fd\U00016fe4e", "abcde"},
		{"blank signs", "a\u2800b\U0001d159c\U00013441d\U00013442e", "abcde"},
		{"other scripts", "日本 עברית é", "日本 עברית é"},
		{"other spaces", "a\u00a0b\u3000c\u2003d", "a b c d"},
		{"nothing visible", "\u200b \x00\n", ""},
		{"blank around hidden", "a \u200b b", "a b"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Line(c.in, 1000)) })
	}
}

func TestEscapeSequences(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"colour", "\x1b[1;31mred\x1b[0m", "red"},
		{"private mode", "a\x1b[?25lb\x1b[ qc", "abc"},
		{"one character CSI", "a\u009b2Jb", "ab"},
		{"link", "\x1b]8;;http://x\x07text\x1b]8;;\x1b\\.", "text."},
		{"clipboard, one character", "a\u009d52;c;Zm9v\u009cb", "ab"},
		{"device control string", "a\x1bP1;2|q\x1b\\b", "ab"},
		{"character set", "a\x1b(Bb", "ab"},
		{"unfinished CSI", "a\x1b[31\x00m", "a[31m"},
		{"unfinished string", "a\x1b]0;title", "a]0;title"},
		{"string ended by another", "a\x1b]0;x\x1b[31mb", "a]0;xb"},
		{"string across lines", "a\x1b]0;x\nb\x07", "a]0;x b"},
		{"bare", "a\x1b", "a"},
		{"doubled", "a\x1b\x1b[31m[0mb", "a[0mb"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Line(c.in, 1000)) })
	}
}

func TestBlock(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"lines", "a\r\n\r\n  b\nc \n\n", "a\n\n  b\nc"},
		{"separators", "a\rb\u2028c\u0085d", "a\nb\nc\nd"},
		{"tabs", "\ta\tb", " a b"},
		{"markup", "x <b>\x00", "x ‹b›"},
		{"colour", "\x1b[31ma\x1b[0m\nb", "a\nb"},
		{"blank", " \n\t\n", ""},
		{"line break behind", "a\nb\n", "a\nb"},
		{"space behind", "a\nb ", "a\nb"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Block(c.in, 100)) })
	}
}

func TestBound(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdefgh", 6, "abc…"},
		{"éééé", 6, "é…"},
		{"éééé", 3, "…"},
		{"éééé", 2, ""},
		{"ab", 2, "ab"},
		{"a", 0, ""},
		{"a", -1, ""},
		{"", -1, ""},
		{"a\nb\nlonger", 8, "a\nb\nl…"},
		{"a<", 3, "…"},           // the replacement is longer
		{"abc   \n  ", 4, "abc"}, // white space at the end needs no room
		{"abc   \nd", 5, "ab…"},
		{"ab……cdefgh", 8, "ab…"},
	} {
		require.Equal(t, c.want, Block(c.in, c.max), "%q in %d", c.in, c.max)
	}
	require.Equal(t, "a", Line("a\x00", math.MaxInt))
}

// What lies far behind the bound is not even looked at: after enough characters
// that show nothing, what follows is as if cut.
func TestHugeInput(t *testing.T) {
	const huge = 50 << 20
	for _, filler := range []string{"\u200b", " ", "\n", "\x1b[0m", "\xc2\x9d", "\x1b]", "x", "<"} {
		s := strings.Repeat(filler, huge/len(filler)) + "end"
		for _, clean := range []func(string, int) string{Line, Block} {
			out := clean(s, 100)
			require.LessOrEqual(t, len(out), 100)
			require.True(t, strings.HasSuffix(out, "…"), "%q", filler)
		}
	}
	in := reader{rest: strings.Repeat("\u200b", huge/3), left: enough(100)}
	require.Equal(t, end, in.next())
	require.Greater(t, len(in.rest), huge-enough(100)-4)
}

// forbidden is looked for with a list of its own, not with the tables under test.
var (
	forbidden = regexp.MustCompile(`[<>\x00-\x09\x0b-\x1f\x7f-\x{9f}\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}` +
		`\x{e000}-\x{f8ff}\x{fe00}-\x{fe0f}\x{feff}\x{fdd0}-\x{fdef}\x{fffe}\x{ffff}\x{e0000}-\x{e0fff}\x{f0000}-\x{10ffff}]`)
	tag = regexp.MustCompile(`</?[a-zA-Z]`)
)

func FuzzClean(f *testing.F) {
	for _, s := range []string{
		"", "</a><b>", "a\u202eb\x1b[0m", "\xff\xfe", "a\n\n\n b", strings.Repeat("é ", 40), "a\r\n\r",
		"\x1b]8;;x\x07y\u009b1m", " \u2028… \n…", "a\x1b", "\U000e0041\ufe0f\ue000\ufffe", "ab  \u200b \n",
	} {
		f.Add(s, 40)
		f.Add(s, 5)
	}
	f.Fuzz(func(t *testing.T, s string, max int) {
		max %= 1000
		for i, clean := range []func(string, int) string{Line, Block} {
			out := clean(s, max)
			require.LessOrEqual(t, len(out), bound(max))
			require.True(t, utf8.ValidString(out))
			require.False(t, tag.MatchString(out))
			require.Empty(t, forbidden.FindString(out), "%q", out)
			require.Equal(t, out, strings.TrimRightFunc(out, unicode.IsSpace))
			require.Equal(t, out, clean(out, max), "idempotent")
			long, whole := tidy(s, max, i == 0)
			require.Equal(t, long, out, "the short way is the long way")
			require.True(t, whole || out == "" || strings.HasSuffix(out, mark), "what is cut is marked")
		}
		require.NotContains(t, Line(s, max), "\n")
		require.NotContains(t, Line(s, max), "  ")
	})
}

func bound(max int) int {
	if max < 0 {
		return 0
	}
	return max
}
