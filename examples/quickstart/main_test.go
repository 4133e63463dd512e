package main

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const shop = `// Package shop has one finding of each kind.
package shop

import (
	"errors"
	"io"
)

// Open has a doc comment.
func Open(err error) bool { return err == io.EOF }

func Shut() {}

type Door struct{}

func (*Door) Lock() {}

type bell struct{}

func (bell) Ring() {}

// TODO: oil the hinges
var errStuck = errors.New("TODO in a string")

func fix(err error) error {
	if err != nil && errStuck != err {
		return nil
	}
	return err
}
`

var tree = map[string]string{
	"shop/shop.go":            shop,
	"shop/shop_test.go":       "package shop\n\nimport _ \"testing\"\n",
	"yard/yard.go":            "package yard\n\nimport _ \"io\"\n\n/* FIXME later */\n",
	"broken/broken.go":        "package broken\n\nfunc Unfinished( {\n",
	"broken/empty.go":         "",
	"vendor/v/v.go":           "package v\n\n// TODO not ours\n",
	"shop/testdata/t.go":      "package t\n\n// TODO not ours\n",
	".hidden/h.go":            "package h\n\n// TODO not ours\n",
	"_off/o.go":               "package o\n\n// TODO not ours\n",
	"yard/notes.txt":          "TODO not Go\n",
	"yard/directory.go/x.txt": "a directory with the name of a Go file\n",
}

// write makes a tree of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	return dir
}

// answers are all that the program found out about tree, but for the repeated
// blocks: what is known of those depends on when the child was cancelled.
var answers = map[string]string{
	"reviewer: exported names without a doc comment: completed": `
  3 of 4 exported names
    shop/shop.go:12  Shut
    shop/shop.go:14  Door
    shop/shop.go:16  Door.Lock
`,
	"reviewer: longest functions: completed": `
  5 functions
         6 lines  shop/shop.go:25  fix
         1 lines  shop/shop.go:10  Open
         1 lines  shop/shop.go:12  Shut
         1 lines  shop/shop.go:16  Door.Lock
         1 lines  shop/shop.go:20  bell.Ring
`,
	"reviewer: errors compared with ==: completed": `
  2 comparisons
    shop/shop.go:10  err == io.EOF
    shop/shop.go:26  errStuck != err
`,
	"surveyor: largest files: completed": `
  41 lines in 5 files
        30 lines  shop/shop.go
         5 lines  yard/yard.go
         3 lines  broken/broken.go
         3 lines  shop/shop_test.go
         0 lines  broken/empty.go
`,
	"surveyor: files that do not parse: completed": `
  2 of 5 files
    broken/broken.go:3:18: expected ')', found '{'
    broken/empty.go:1:1: expected 'package', found 'EOF'
`,
	"surveyor: TODO markers: completed": `
  2 markers
    shop/shop.go:22  TODO: oil the hinges
    yard/yard.go:5  FIXME later
`,
	"surveyor: packages without tests: completed": `
  2 of 3 packages
         5 lines  yard
         3 lines  broken
`,
	"surveyor: packages imported by most others: completed": `
  3 packages are imported
         2 importers  io
         1 importers  errors
         1 importers  testing
`,
}

func TestRun(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, write(t, tree)))
	work, results, ok := strings.Cut(out.String(), "\nresults\n\n")
	require.True(t, ok, out.String())

	got := map[string]string{}
	for section := range strings.SplitSeq(results, "\n\n") {
		title, text, _ := strings.Cut(section, "\n")
		got[title] = "\n" + strings.TrimRight(text, "\n") + "\n"
	}
	const cancelled = "reviewer: repeated blocks of lines: cancelled (by_parent); so far it had:"
	titles := slices.DeleteFunc(slices.Collect(maps.Keys(got)), func(title string) bool {
		return !strings.HasPrefix(title, cancelled)
	})
	require.Len(t, titles, 1, results)
	delete(got, titles[0])
	require.Equal(t, answers, got)

	require.Contains(t, work, "meanwhile the parent counted 41 lines in 3 packages\n")
	require.Regexp(t, `(?m)^\d\.\ds  status: \d ended, \d to come\n  reviewer  running  \d\.\ds +repeated blocks of lines$`, work)
	require.Regexp(t, `(?m)^  surveyor  pending  #\d in queue  packages without tests$`, work)
	require.Regexp(t, `(?m)^\d\.\ds  cancelled: repeated blocks of lines$`, work)
	checkNotifications(t, work)
}

// checkNotifications finds what the parent was told: of each investigation once,
// but for the one that it cancelled itself, and in the end of all of them.
func checkNotifications(t *testing.T, out string) {
	t.Helper()
	news, final, ok := strings.Cut(out, "s  final notification\n  > All your background tasks have ended")
	require.True(t, ok, out)
	require.NotContains(t, final, "notification", "nothing comes after the final one")
	fresh, _, _ := strings.Cut(final, "Told before:")
	for n, i := range investigations {
		question := regexp.QuoteMeta(i.question)
		line := regexp.MustCompile(`(?m)^  > - bg_\w{26} completed; .*"` + question + `"`)
		told := len(line.FindAllString(fresh, -1)) + len(regexp.MustCompile(`notification: .*`+question+` \(completed\)`).FindAllString(news, -1))
		if n == endless {
			require.Zero(t, told, i.question)
			require.NotContains(t, final, i.question)
			continue
		}
		require.Equal(t, 1, told, i.question)
		require.Len(t, line.FindAllString(final, -1), 1, i.question)
	}
}

func TestBadDirectory(t *testing.T) {
	t.Parallel()
	root := write(t, map[string]string{"a.go": "package a\n", "none/x.txt": "x", "off/vendor/a.go": "package a\n"})
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"missing":      {[]string{filepath.Join(root, "missing")}, "missing"},
		"file":         {[]string{filepath.Join(root, "a.go")}, "a.go is not a directory"},
		"empty":        {[]string{t.TempDir()}, "no Go files under "},
		"no Go files":  {[]string{filepath.Join(root, "none")}, "no Go files under "},
		"only ignored": {[]string{filepath.Join(root, "off")}, "no Go files under "},
		"two":          {[]string{root, root}, "one DIR at most, not 2"},
	} {
		var out strings.Builder
		require.ErrorContains(t, run(t.Context(), &out, c.args...), c.want, name)
		require.Empty(t, out.String(), name)
	}
	err := run(t.Context(), new(strings.Builder), filepath.Join(root, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "quickstart.exe")
	text, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput()
	require.NoError(t, err, "%s", text)

	root := write(t, map[string]string{"go.mod": "module m\n", "m.go": "package m\n", "sub/s.go": "package s\n"})
	exit := func(args ...string) (status int, out, errs string) {
		cmd := exec.Command(name, args...)
		var stdout, stderr strings.Builder
		cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(root, "sub"), &stdout, &stderr
		var failed *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &failed) {
			require.NoError(t, err)
		}
		return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
	}

	status, out, errs := exit()
	require.Zero(t, status)
	require.Empty(t, errs)
	require.Contains(t, out, "2 lines in 2 packages", "the module around the working directory")

	status, out, errs = exit("missing")
	require.Equal(t, 1, status)
	require.Empty(t, out)
	require.Regexp(t, `^quickstart: .*missing.*\n$`, errs)
}

func TestRepeatedLines(t *testing.T) {
	t.Parallel()
	const a, b, c = "the first repeated line", "the second repeated line", "the third repeated line"
	dir := write(t, map[string]string{
		"a.go": strings.Join([]string{"x", a, "}", b, c, "y"}, "\n"),
		"b.go": strings.Join([]string{a, "\t}", b, "\t" + c}, "\n"),
		"c.go": strings.Join([]string{c, c, c, c}, "\n"),
	})
	found := map[string]int{}
	for _, places := range equalLines(t.Context(), dir) {
		for i, p := range places {
			for _, q := range places[i+1:] {
				p, q, n := block(p, q)
				found[p.String()+" "+q.String()] = n
			}
		}
	}
	require.Equal(t, 4, found["a.go:2 b.go:1"], "short lines count within a block")
	require.Equal(t, 2, found["c.go:1 c.go:3"], "a block does not overlap itself")
	require.NotContains(t, found, "a.go:3 b.go:2", "a block is found whole")
}
