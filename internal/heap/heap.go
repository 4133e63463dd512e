// Package heap is a binary heap whose items know their own place, so that any
// of them can be moved or taken out in O(log n) without a search.
//
// The zero Heap is empty and ready. It has no lock: whoever owns it guards it.
package heap

// Item is what a Heap holds: an order, and a cell for the heap to note its place in.
type Item[T any] interface {
	comparable
	// Before reports whether the item comes out before the other one.
	Before(T) bool
	// Place is the cell the heap writes the item's place to: 0 while the item
	// is in no heap. Nobody else writes it.
	Place() *int
}

// Heap is a priority queue; the item that is Before all others is on top.
type Heap[T Item[T]] struct{ items []T }

// Len is the number of items held.
func (h *Heap[T]) Len() int { return len(h.items) }

// Top is the first item, without taking it; ok is false for an empty heap.
func (h *Heap[T]) Top() (top T, ok bool) {
	if len(h.items) == 0 {
		return top, false
	}
	return h.items[0], true
}

// Push adds an item, or moves one that the heap holds already to where its
// order now puts it.
func (h *Heap[T]) Push(item T) {
	if *item.Place() == 0 {
		h.items = append(h.items, item)
		*item.Place() = len(h.items)
	}
	i := *item.Place() - 1
	if !h.down(i) {
		h.up(i)
	}
}

// Pop takes the first item out; ok is false for an empty heap.
func (h *Heap[T]) Pop() (top T, ok bool) {
	top, ok = h.Top()
	if ok {
		h.Remove(top)
	}
	return top, ok
}

// Remove takes an item out. An item that is in no heap is left alone.
func (h *Heap[T]) Remove(item T) {
	i := *item.Place() - 1
	if i < 0 {
		return
	}
	last := len(h.items) - 1
	h.swap(i, last)
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	*item.Place() = 0
	if i < last && !h.down(i) {
		h.up(i)
	}
}

func (h *Heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.items[i].Before(h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

// down sinks item i and reports whether it moved.
func (h *Heap[T]) down(i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.items[right].Before(h.items[child]) {
			child = right
		}
		if !h.items[child].Before(h.items[i]) {
			break
		}
		h.swap(i, child)
		i = child
	}
	return i > start
}

func (h *Heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.items[i].Place() = i + 1
	*h.items[j].Place() = j + 1
}
