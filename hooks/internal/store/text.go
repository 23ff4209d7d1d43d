package store

// FirstCharacters shortens s to a number of characters.
func FirstCharacters(s string, length int) string {
	if len(s) <= length {
		return s
	}
	runes := []rune(s)
	return string(runes[:min(len(runes), length)])
}
