package realtime

import (
	"iter"
	"maps"
	"slices"
)

// An index finds the subscribers that a change can concern: those that demand an equality
// of every record by it, and those whom every change can concern by the zero equality. It
// counts what their views ask for.
type index map[equality]map[*subscriber]int

// noteView notes a view of the subscriber, n times, and its topics' fields with it. The lock
// is held.
func (f *FanOut) noteView(s *subscriber, v view, n int) {
	for _, t := range v.topics {
		of := t.filter.demand
		before, behind := f.hearsAll(s), f.isBehind(s)
		if f.index[of] == nil {
			f.index[of] = map[*subscriber]int{}
		}
		if f.index[of][s] += n; f.index[of][s] == 0 {
			delete(f.index[of], s)
		}
		if len(f.index[of]) == 0 {
			delete(f.index, of)
		}
		switch now := f.hearsAll(s); {
		case now && !before && !behind:
			s.position.Store(f.end())
		case before && !now && s.position.Load() < f.end():
			f.behind[s] = struct{}{}
		}
		if of.field != "" {
			addCount(f.demanded, of.column(), n)
		}
		for _, field := range t.filter.fields {
			addCount(f.filterFields, field, n)
		}
		if t.filter.asks() {
			f.asking += n
		}
		if t.leave {
			f.leaving += n
		}
	}
}

// hearsAll reports whether every change can concern the subscriber. The lock is held.
func (f *FanOut) hearsAll(s *subscriber) bool { return f.index[equality{}][s] > 0 }

// isBehind reports whether the subscriber has a position in the log. The lock is held.
func (f *FanOut) isBehind(s *subscriber) bool {
	_, behind := f.behind[s]
	return behind || f.hearsAll(s)
}

// allBehind returns the subscribers that have a position in the log. The lock is held.
func (f *FanOut) allBehind() []*subscriber {
	all := make([]*subscriber, 0, len(f.index[equality{}])+len(f.behind))
	all = slices.AppendSeq(all, maps.Keys(f.index[equality{}]))
	for s := range f.behind {
		if !f.hearsAll(s) {
			all = append(all, s)
		}
	}
	return slices.DeleteFunc(all, func(s *subscriber) bool { return s.away != nil })
}

func addCount[K comparable](counts map[K]int, key K, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}

// note gives those a position in the log whom the change, its next, can concern by an
// equality. The lock is held.
func (f *FanOut) note(c *change) {
	for of := range f.equalities(c) {
		for s := range f.index[of] {
			if !f.isBehind(s) && s.away == nil {
				s.position.Store(f.end())
				f.behind[s] = struct{}{}
			}
		}
	}
}

// concernsNobody reports whether the change need not be encoded.
func (f *FanOut) concernsNobody(c *change) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.index[equality{}]) > 0 {
		return false
	}
	for range f.equalities(c) {
		return false
	}
	return true
}

// equalities returns those that subscribers demand and that the change has, before or
// after. The lock is held.
func (f *FanOut) equalities(c *change) iter.Seq[equality] {
	return func(yield func(equality) bool) {
		for column := range f.demanded {
			if column.collection != c.record.Collection().Name {
				continue
			}
			for _, row := range []row{c.row, c.before.row} {
				value := row[column.field]
				switch {
				case value != nil: // NULL equals the empty text
					if of := (equality{column.collection, column.field, value.text}); f.index[of] != nil && !yield(of) {
						return
					}
				case row != nil: // a long field, that somebody asked for since
					for of := range f.index {
						if of.column() == column && !yield(of) {
							return
						}
					}
				}
			}
		}
	}
}
