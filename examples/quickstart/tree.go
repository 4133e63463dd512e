package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// findTree is the directory to look at: the one named, or the module around the
// working directory. It has at least one Go file.
func findTree(ctx context.Context, args []string) (string, error) {
	if len(args) > 1 {
		return "", fmt.Errorf("one DIR at most, not %d", len(args))
	}
	dir := moduleRoot()
	if len(args) == 1 {
		dir = args[0]
	}
	// The walk would not enter a DIR that is a link.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	// Also says why when the directory can't be read.
	if _, err := os.ReadDir(real); err != nil {
		return "", err
	}
	files := 0
	if err := eachFile(ctx, real, func(string, []byte, error) { files++ }); err != nil {
		return "", err
	}
	if files == 0 {
		return "", fmt.Errorf("no Go files under %q", dir)
	}
	return real, nil
}

// moduleRoot walks up from the working directory to a go.mod.
func moduleRoot() string {
	wd, err := os.Getwd()
	if err != nil {
		return "."
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return "."
		}
	}
}

// eachFile visits the Go files under dir, and with an error what can't be read.
// Names are relative to dir. The error is that of ctx.
func eachFile(ctx context.Context, dir string, visit func(name string, text []byte, err error)) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, dir), string(filepath.Separator))
		name = filepath.ToSlash(name)
		switch {
		case err != nil:
			visit(name, nil, err)
		case path != dir && ignored(d.Name()):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular() && strings.HasSuffix(name, ".go"):
			text, err := os.ReadFile(path)
			visit(name, text, err)
		}
		return nil
	})
}

// ignored tells what the go command does not look at either.
func ignored(name string) bool {
	return name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

func countLines(text []byte) int {
	n := bytes.Count(text, []byte("\n"))
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}

// source is a Go file that was parsed.
type source struct {
	name string
	fset *token.FileSet
	tree *ast.File
}

// at is where something stands, as "file:line".
func (s *source) at(p token.Pos) string { return fmt.Sprintf("%s:%d", s.name, s.line(p)) }

// line ignores //line directives: the answer is about this file.
func (s *source) line(p token.Pos) int { return s.fset.PositionFor(p, false).Line }

// eachSource visits the Go files that could be parsed. The others are left to
// brokenFiles.
func eachSource(ctx context.Context, dir string, mode parser.Mode, visit func(*source)) error {
	return eachFile(ctx, dir, func(name string, text []byte, err error) {
		if err != nil {
			return
		}
		if s, err := parse(name, text, mode); err == nil {
			visit(s)
		}
	})
}

var errEmpty = errors.New("the file is empty")

func parse(name string, text []byte, mode parser.Mode) (*source, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errEmpty
	}
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, name, text, mode|parser.SkipObjectResolution)
	return &source{name, fset, tree}, err
}
