package mutants

import (
	"cmp"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// core is the tests of the core, built with mutants woven in. Which of them is alive
// is said when it runs: nearly all of the time went into compilers when each had a
// binary of its own.
type core struct {
	binary string
}

// woven is what a mutant does within one function: the body that stands in for it.
type woven struct {
	id    int // the one that is alive when the environment says so
	fn    *ast.FuncDecl
	start int // the part of the source that differs: [start, end)
	end   int
	text  string // what stands there instead
}

// weavable says whether a mutant changes the body of one function and nothing else.
func weavable(source string, file *ast.File, fset *token.FileSet, m mutant) (woven, bool) {
	w := woven{start: strings.Index(source, m.old), text: m.new}
	old := m.old
	for len(old) > 0 && len(w.text) > 0 && old[0] == w.text[0] {
		old, w.text, w.start = old[1:], w.text[1:], w.start+1
	}
	for len(old) > 0 && len(w.text) > 0 && old[len(old)-1] == w.text[len(w.text)-1] {
		old, w.text = old[:len(old)-1], w.text[:len(w.text)-1]
	}
	w.end = w.start + len(old)
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Body != nil && fset.Position(fn.Body.Lbrace).Offset < w.start && w.end <= fset.Position(fn.Body.Rbrace).Offset {
			w.fn = fn
			return w, !labelled(fn)
		}
	}
	return w, false
}

// labelled functions can't have two bodies.
func labelled(fn *ast.FuncDecl) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		_, is := n.(*ast.LabeledStmt)
		found = found || is
		return !found
	})
	return found
}

// weave returns the source of a file with, at the head of each function, what its
// mutants do instead, and the mutants that can't be put there.
func weave(name string, source string, chosen map[int]mutant) (string, []int, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, 0)
	if err != nil {
		return "", nil, err
	}
	var ws []woven
	var alone []int
	for id, m := range chosen {
		if m.file != name {
			continue
		}
		w, ok := weavable(source, file, fset, m)
		if w.id = id; ok {
			ws = append(ws, w)
		} else {
			alone = append(alone, id)
		}
	}
	slices.SortFunc(ws, func(a, b woven) int { // from the end on, so that places before stay where they are
		return -cmp.Or(cmp.Compare(a.fn.Pos(), b.fn.Pos()), cmp.Compare(a.id, b.id))
	})
	out := source
	for _, w := range ws {
		left, right := fset.Position(w.fn.Body.Lbrace).Offset+1, fset.Position(w.fn.Body.Rbrace).Offset
		body := source[left:w.start] + w.text + source[w.end:right]
		if w.fn.Type.Results == nil {
			body += "\nreturn\n"
		}
		out = out[:left] + fmt.Sprintf("\nif mutantAlive == %d {\n%s\n}\n", w.id, body) + out[left:]
	}
	return out, alone, nil
}

// weaveAll returns the files of the core with the mutants in them, and the mutants
// that need a core of their own.
func weaveAll(chosen map[int]mutant) (files map[string]string, alone []int, err error) {
	files = map[string]string{"mutant.go": switchboard}
	for _, m := range chosen {
		if _, done := files[m.file]; done {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			return nil, nil, err
		}
		text, rest, err := weave(m.file, string(source), chosen)
		if err != nil {
			return nil, nil, err
		}
		files[m.file], alone = text, append(alone, rest...)
	}
	return files, alone, nil
}

// buildAlone builds the core with what one mutant changes.
func buildAlone(dir string, m mutant) (core, error) {
	source, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return core{}, err
	}
	return build(dir, map[string]string{m.file: strings.Replace(string(source), m.old, m.new, 1)})
}

// switchboard goes into the core with the mutants. None is alive where nobody says so.
const switchboard = `package subagent

import (
	"os"
	"strconv"
)

var mutantAlive, _ = strconv.Atoi(os.Getenv("` + aliveVar + `"))
`

const aliveVar = "SUBAGENT_MUTANT"

// build puts files in the place of the core's, or beside them, and builds its tests.
func build(dir string, files map[string]string) (core, error) {
	home, err := filepath.Abs(root)
	if err != nil {
		return core{}, err
	}
	replace := map[string]string{}
	for name, text := range files {
		changed := filepath.Join(dir, name)
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return core{}, err
		}
		replace[filepath.Join(home, name)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return core{}, err
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "core.test")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return core{}, err
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlayFile, "-o", binary, ".")
	cmd.Dir = home
	if out, err := cmd.CombinedOutput(); err != nil {
		return core{}, fmt.Errorf("does not build: %s", out)
	}
	return core{binary}, nil
}
