package clean

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestLine(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "hello", "hello"},
		{"spaces", "  a \t b\r\n c  ", "a b c"},
		{"markup", "</system-reminder><x>", "‹/system-reminder›‹x›"},
		{"escape", "\x1b[31mred\x1b]8;;http://x\x07", "[31mred]8;;http://x"},
		{"bidi", "a\u202eb\u2066c\u200fd\u061ce", "abcde"},
		{"zero width", "a\u200bb\u200dc\ufeffd\u00ade\u180ef\u2060g", "abcdefg"},
		{"tags and selectors", "a\U000e0041b\ufe0fc\U000e0101d", "abcd"},
		{"separators", "a\u2028b\u2029c\u0085d", "a b c d"},
		{"C1", "a\u009bb", "ab"},
		{"invalid", "a\xffb", "a\ufffdb"},
		{"private and non-characters", "a\ue000b\ufffec\U0001ffffd", "abcd"},
		{"fillers", "a\u3164b\u115fc", "abc"},
		{"other scripts", "日本 עברית é", "日本 עברית é"},
		{"no-break space", "a\u00a0b", "a b"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Line(c.in, 1000)) })
	}
}

func TestBlockKeepsLines(t *testing.T) {
	require.Equal(t, "a\n\n  b\nc", Block("a\r\n\r\n  b\nc \n\n", 100))
	require.Equal(t, "x ‹b›", Block("x <b>\x00", 100))
}

func TestBound(t *testing.T) {
	require.Equal(t, "abc…", Line("abcdefgh", 6))
	require.Equal(t, "é…", Line("éééé", 6))
	require.Equal(t, "…", Line("éééé", 3))
	require.Equal(t, "a\nb\nl…", Block("a\nb\nlonger", 8))
	require.Equal(t, "abcdef", Line("abcdef", 6))
}

// A huge input costs no more than what is kept of it.
func TestHugeInput(t *testing.T) {
	s := strings.Repeat("x", 50<<20)
	began := time.Now()
	require.Len(t, Line(s, 100), 100)
	require.Less(t, time.Since(began), time.Second)
}

var tag = regexp.MustCompile(`</?[a-zA-Z]`)

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "</a><b>", "a\u202eb\x1b[0m", "\xff\xfe", "a\n\n\n b", strings.Repeat("é ", 40)} {
		f.Add(s, 40)
	}
	f.Fuzz(func(t *testing.T, s string, max int) {
		if max < 3 || max > 1000 {
			max = 40
		}
		for _, clean := range []func(string, int) string{Line, Block} {
			out := clean(s, max)
			require.LessOrEqual(t, len(out), max)
			require.True(t, utf8.ValidString(out))
			require.False(t, tag.MatchString(out))
			for _, r := range out {
				require.True(t, r == '\n' || !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r), "%U", r)
			}
			require.Equal(t, out, clean(out, max), "idempotent")
		}
		require.NotContains(t, Line(s, max), "\n")
	})
}
