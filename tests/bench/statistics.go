//go:build linux

package main

import (
	"slices"
	"time"
)

// median returns the middle of the values, or the mean of the two in the middle.
func median[T ~int64 | ~float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// percentile returns the value that p percent of the values do not exceed.
func percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	i := int(p/100*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(i, len(sorted)-1))]
}

func each[S, T any](samples []S, get func(S) T) []T {
	var values []T
	for _, s := range samples {
		values = append(values, get(s))
	}
	return values
}

// medianOf returns the median of one figure of the samples.
func medianOf[S any, T ~int64 | ~float64](samples []S, get func(S) T) T {
	return median(each(samples, get))
}

// ratioOf returns the median of the ratios in each round: what a noisy neighbour does
// to one round, it does to both.
func ratioOf[S any](samples, base []S, get func(S) float64) float64 {
	var ratios []float64
	for i := range min(len(samples), len(base)) {
		if of := get(base[i]); of > 0 {
			ratios = append(ratios, get(samples[i])/of)
		}
	}
	return median(ratios)
}
