package heap

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

type item struct{ key, place int }

func (i *item) Before(o *item) bool { return i.key < o.key }
func (i *item) Place() *int         { return &i.place }

// A heap under random pushes, moves, removals and pops gives what a sorted
// slice would, and every item knows its place throughout.
func TestAgainstSortedSlice(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h Heap[*item]
	var model []*item
	for step := range 20_000 {
		switch op := rng.IntN(4); {
		case op == 0 || len(model) == 0:
			it := &item{key: rng.IntN(1000)}
			h.Push(it)
			model = append(model, it)
		case op == 1:
			it := model[rng.IntN(len(model))]
			it.key = rng.IntN(1000)
			h.Push(it)
		case op == 2:
			i := rng.IntN(len(model))
			h.Remove(model[i])
			require.Zero(t, model[i].place)
			model = slices.Delete(model, i, i+1)
		default:
			got, ok := h.Pop()
			require.True(t, ok)
			least := slices.MinFunc(model, func(a, b *item) int { return a.key - b.key })
			require.Equal(t, least.key, got.key, "step %d", step)
			model = slices.DeleteFunc(model, func(it *item) bool { return it == got })
		}
		require.Equal(t, len(model), h.Len())
		for _, it := range model {
			require.Same(t, it, h.items[it.place-1])
		}
		if top, ok := h.Top(); ok {
			for _, it := range model {
				require.LessOrEqual(t, top.key, it.key)
			}
		}
	}
}

func TestEmptyHeap(t *testing.T) {
	var h Heap[*item]
	_, ok := h.Top()
	require.False(t, ok)
	_, ok = h.Pop()
	require.False(t, ok)
	h.Remove(&item{}) // in no heap: nothing to do
	require.Zero(t, h.Len())
}
