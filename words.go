package subagent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// worded is the type of a closed set of values, each with a word: but for the zero value
// where that means nothing.
type worded interface{ ~int | ~uint8 }

// wordOf is the value's word, or its number where it has none.
func wordOf[T worded](kind string, words []string, v T) string {
	if v < 0 || int(v) >= len(words) || words[v] == "" {
		return fmt.Sprintf("%s(%d)", kind, int(v))
	}
	return words[v]
}

// fromWord reads what wordOf returned for a value that has a word.
func fromWord[T worded](kind string, words []string, v *T, text []byte) error {
	i := slices.Index(words, string(text))
	if i < 0 || len(text) == 0 {
		known := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
		return &InputError{kind, fmt.Sprintf("%q", text), "must be one of " + strings.Join(known, ", ")}
	}
	*v = T(i)
	return nil
}

// unreadableError stands for an error of the host whose method panics.
const unreadableError = "an error that can't be read"

// textOf is an error as it is written to JSON; "" for none.
func textOf(err error) (text string) {
	if err == nil {
		return ""
	}
	defer func() {
		if recover() != nil {
			text = unreadableError
		}
	}()
	return err.Error()
}

// errorOf is what is left of an error that was written to JSON.
func errorOf(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}
