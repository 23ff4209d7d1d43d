package realtime

import "maps"

// An index finds the subscribers that a change can concern: those that demand an equality
// of every record by it, and all others by the zero equality. It counts what their views
// ask for.
type index map[equality]map[*subscriber]int

// noteView notes a view of the subscriber, n times, and its topics' fields with it. The lock is
// held.
func (f *FanOut) noteView(s *subscriber, v view, n int) {
	for _, t := range v.topics {
		of := t.filter.demand
		if f.index[of] == nil {
			f.index[of] = map[*subscriber]int{}
		}
		if f.index[of][s] += n; f.index[of][s] == 0 {
			delete(f.index[of], s)
		}
		if len(f.index[of]) == 0 {
			delete(f.index, of)
		}
		count(f.demanded, of.field, n)
		for _, field := range t.filter.fields {
			count(f.filterFields, field, n)
		}
		if t.filter.asks() {
			f.asking += n
		}
		if t.leave {
			f.leaving += n
		}
	}
}

func count(counts map[string]int, key string, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}

// concerned returns the subscribers that the change can concern. The lock is held.
func (f *FanOut) concerned(c *change) map[*subscriber]struct{} {
	found := map[*subscriber]struct{}{}
	add := func(of equality) {
		for s := range maps.Keys(f.index[of]) {
			found[s] = struct{}{}
		}
	}
	for field := range f.demanded {
		if field == "" {
			add(equality{})
			continue
		}
		for _, row := range []row{c.row, c.before.row} {
			value, read := row[field]
			switch {
			case read:
				add(equality{field, value})
			case row != nil: // a long field, that somebody asked for since
				for of := range f.index {
					if of.field == field {
						add(of)
					}
				}
			}
		}
	}
	return found
}
