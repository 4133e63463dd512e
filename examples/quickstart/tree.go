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
	"iter"
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
	root, err := filepath.EvalSymlinks(dir) // a walk does not follow links
	var info fs.FileInfo
	if err == nil {
		info, err = os.Stat(root)
	}
	if err == nil && !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", dir)
	}
	if err == nil {
		_, err = os.ReadDir(root)
	}
	var why *fs.PathError
	if errors.As(err, &why) { // without the name of the call that failed
		err = fmt.Errorf("%s: %w", dir, why.Err)
	}
	if err != nil {
		return "", err
	}
	for range goFiles(ctx, root) {
		return root, nil
	}
	return "", fmt.Errorf("no Go files under %s", dir)
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

// file is a Go file, or with err what could not be read.
type file struct {
	name string // below the root, with slashes
	text []byte
	err  error
}

// goFiles walks the Go files under dir, in lexical order, until ctx ends.
func goFiles(ctx context.Context, dir string) iter.Seq[file] {
	return func(yield func(file) bool) {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			f := file{err: err}
			switch {
			case err != nil: // yield it
			case path != dir && ignored(d.Name()):
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			case d.Type().IsRegular() && strings.HasSuffix(path, ".go"):
				f.text, f.err = os.ReadFile(path)
			default:
				return nil
			}
			if rel, err := filepath.Rel(dir, path); err == nil {
				f.name = filepath.ToSlash(rel)
			}
			if ctx.Err() != nil || !yield(f) {
				return fs.SkipAll
			}
			return nil
		})
	}
}

// ignored tells what the go command does not look at either.
func ignored(name string) bool {
	return name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

func (f file) lines() int {
	n := bytes.Count(f.text, []byte("\n"))
	if len(f.text) > 0 && !bytes.HasSuffix(f.text, []byte("\n")) {
		n++
	}
	return n
}

// source is a Go file that was parsed.
type source struct {
	file
	fset *token.FileSet
	tree *ast.File
}

// sources walks the Go files that can be parsed. brokenFiles names the others.
func sources(ctx context.Context, dir string, mode parser.Mode) iter.Seq[*source] {
	return func(yield func(*source) bool) {
		for f := range goFiles(ctx, dir) {
			if s, err := f.parse(mode); err == nil && !yield(s) {
				return
			}
		}
	}
}

func (f file) parse(mode parser.Mode) (*source, error) {
	if f.err != nil {
		return nil, f.err
	}
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, f.name, f.text, mode|parser.SkipObjectResolution)
	return &source{f, fset, tree}, err
}

// line is in this file, whatever a //line directive says.
func (s *source) line(p token.Pos) int { return s.fset.PositionFor(p, false).Line }

// at is where something stands, as "file:line".
func (s *source) at(p token.Pos) string { return fmt.Sprintf("%s:%d", s.name, s.line(p)) }
