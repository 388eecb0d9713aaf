package rnnx

import (
	"fmt"
	"math"
)

const smallestSum = 0x1p-1000

// Sampler draws symbols from scores, the same in every language: splitmix64 (Steele, Lea, Flood 2014, "Fast
// splittable pseudorandom number generators") and the inverse of a running sum.
type Sampler struct {
	State       uint64  // of the generator; a sampler with it as its seed continues where this one stands
	Temperature float64 // 0 for the best symbol each time, 1 for the model's own probabilities
	weights     []float64
}

// NewSampler returns a sampler with a seed. The error is temperature-invalid.
func NewSampler(seed uint64, temperature float64) (*Sampler, error) {
	if math.IsNaN(temperature) || math.IsInf(temperature, 0) || temperature < 0 {
		return nil, newError("temperature-invalid", "a finite temperature of 0 or more", shown(temperature),
			"try 0.7; 0 always takes the best symbol")
	}
	return &Sampler{State: seed, Temperature: temperature}, nil
}

// NextUint64 returns the next number of splitmix64.
func (s *Sampler) NextUint64() uint64 {
	s.State += 0x9E3779B97F4A7C15
	z := s.State
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// Uniform returns the next u in [0, 1), a multiple of 2^-53.
func (s *Sampler) Uniform() float64 { return float64(s.NextUint64()>>11) * 0x1p-53 }

// SampleWeights draws an index with probability proportional to its weight; it takes one number. The error is
// weights-invalid; no number is drawn then.
func (s *Sampler) SampleWeights(weights []float64) (int, error) {
	total, isValid := 0.0, len(weights) > 0
	for _, weight := range weights {
		total += weight // one after the other, so that the sums are the same in every language
		isValid = isValid && weight >= 0
	}
	if !isValid || !(total >= smallestSum) || math.IsInf(total, 1) {
		return 0, newError("weights-invalid",
			"weights [symbols], none negative, with a finite sum of at least 2^-1000",
			fmt.Sprintf("shape [%d] with %s", len(weights), offender(weights)), "check what the weights were computed from")
	}
	threshold := s.Uniform() * total
	sum := 0.0
	for index, weight := range weights {
		if sum += weight; sum > threshold {
			return index, nil
		}
	}
	panic("rnnx: u is below 1, so that the last sum is above u times itself")
}

// Sample draws a symbol from its logits, of any float dtype; it takes one number, or none at temperature 0. The
// error is scores-invalid for NaN, plus infinity, or nothing to choose from.
func (s *Sampler) Sample(scores Tensor) (int, error) {
	highest, best, isNaN := math.Inf(-1), 0, false
	s.weights = s.weights[:0]
	for index := range count(scores.Shape) {
		score := scores.Number(index)
		s.weights = append(s.weights, score)
		isNaN = isNaN || math.IsNaN(score)
		if score > highest {
			highest, best = score, index
		}
	}
	if isNaN || math.IsInf(highest, 0) {
		return 0, newError("scores-invalid", "scores [symbols] below infinity with at least one finite",
			fmt.Sprintf("shape [%d] with %s", len(s.weights), offender(s.weights)),
			"check the model's weights and inputs for NaN")
	}
	if s.Temperature == 0 {
		return best, nil
	}
	for index, score := range s.weights {
		s.weights[index] = math.Exp((score - highest) / s.Temperature)
	}
	return s.SampleWeights(s.weights)
}

func offender(values []float64) string {
	if len(values) == 0 {
		return "no entries"
	}
	for _, isWrong := range []func(float64) bool{
		math.IsNaN,
		func(value float64) bool { return math.IsInf(value, 1) },
		func(value float64) bool { return value < 0 },
	} {
		for index, value := range values {
			if isWrong(value) {
				return fmt.Sprintf("%s at index %d", shown(value), index)
			}
		}
	}
	for _, value := range values {
		if value != 0 {
			return "a sum out of range"
		}
	}
	return "all zero"
}
