package rnnx

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Axis is one dimension of a shape in a contract: Factor entries, or Factor for each 1 of what Name stands for.
type Axis struct {
	Name   string // "batch", "time", a free dimension; "" for a number
	Factor int
	// Whether it is written "N*time": such an axis stays in a step, with N entries.
	IsMultiple bool
}

// sizes of batch, time and the free dimensions, by name.
type sizes map[string]int

func (s sizes) with(name string, size int) sizes {
	copied := sizes{name: size}
	for key, value := range s {
		if key != name {
			copied[key] = value
		}
	}
	return copied
}

var namedAxis = regexp.MustCompile(`^(?:([1-9][0-9]*)\*)?([A-Za-z_][A-Za-z0-9_]*)$`)

func parseAxis(text string) (Axis, bool) {
	match := namedAxis.FindStringSubmatch(text)
	if match == nil || match[1] != "" && match[2] != "time" {
		return Axis{}, false
	}
	if match[1] == "" {
		return Axis{match[2], 1, false}, true
	}
	factor, err := strconv.Atoi(match[1])
	return Axis{match[2], factor, true}, err == nil
}

// String returns the axis as a contract writes it.
func (a Axis) String() string {
	switch {
	case a.Name == "":
		return strconv.Itoa(a.Factor)
	case a.IsMultiple:
		return fmt.Sprintf("%d*%s", a.Factor, a.Name)
	default:
		return a.Name
	}
}

func axisIndex(shape []Axis, name string) int {
	return slices.IndexFunc(shape, func(axis Axis) bool { return axis.Name == name })
}

// resolve returns a shape in numbers; false if known lacks a name.
func resolve(shape []Axis, known sizes) ([]int, bool) {
	numbers := make([]int, len(shape))
	for index, axis := range shape {
		numbers[index] = axis.Factor
		if axis.Name != "" {
			size, ok := known[axis.Name]
			if !ok {
				return nil, false
			}
			numbers[index] *= size
		}
	}
	return numbers, true
}

// stepShape returns the shape of one step: no time axis; an N*time axis has N entries there.
func stepShape(shape []Axis) []Axis {
	step := []Axis{}
	for _, axis := range shape {
		switch {
		case axis.IsMultiple:
			step = append(step, Axis{"", axis.Factor, false})
		case axis.Name != "time":
			step = append(step, axis)
		}
	}
	return step
}

// withTime returns the shape of a chunk of a step model: time right after the batch, first without one.
func withTime(shape []Axis) []Axis {
	return slices.Insert(slices.Clone(shape), axisIndex(shape, "batch")+1, Axis{"time", 1, false})
}

// fit returns known with the names that actual settles; false where it contradicts shape or known.
func fit(shape []Axis, actual []int, known sizes) (sizes, bool) {
	if len(shape) != len(actual) {
		return nil, false
	}
	fitted := sizes{}
	for name, size := range known {
		fitted[name] = size
	}
	for index, axis := range shape {
		if axis.Name == "" {
			if actual[index] != axis.Factor {
				return nil, false
			}
			continue
		}
		if _, ok := fitted[axis.Name]; !ok {
			fitted[axis.Name] = actual[index] / axis.Factor
		}
		if fitted[axis.Name]*axis.Factor != actual[index] {
			return nil, false
		}
	}
	return fitted, true
}

// filled returns a shape for a message, with the sizes that are known: [batch=2, 4*time, 3].
func filled(shape []Axis, known sizes) string {
	parts := make([]string, len(shape))
	for index, axis := range shape {
		parts[index] = axis.String()
		if size, ok := known[axis.Name]; ok {
			parts[index] += "=" + strconv.Itoa(axis.Factor*size)
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// describe returns float32[batch, 3]: how a tensor is written in messages.
func describe[T any](dtype string, shape []T) string {
	return dtype + "[" + list(shape) + "]"
}

func list[T any](entries []T) string {
	parts := make([]string, len(entries))
	for index, entry := range entries {
		parts[index] = fmt.Sprint(entry)
	}
	return strings.Join(parts, ", ")
}

func keys[T any](named map[string]T) []string {
	names := make([]string, 0, len(named))
	for name := range named {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// pieces says where the values of one step lie in those of a chunk: outer pieces of size bytes, every stride.
type pieces struct{ outer, size, stride int }

// piecesOf a tensor of numbers along an axis, factor entries a step.
func piecesOf(numbers []int, axis, factor, entryBytes int) pieces {
	inner := count(numbers[axis+1:]) * entryBytes
	return pieces{count(numbers[:axis]), factor * inner, numbers[axis] * inner}
}

// take copies a step of chunk to row, which is contiguous.
func (p pieces) take(chunk []byte, step int, row []byte) {
	for index := range p.outer {
		copy(row[index*p.size:][:p.size], chunk[index*p.stride+step*p.size:])
	}
}

// put copies row to a step of chunk.
func (p pieces) put(chunk []byte, step int, row []byte) {
	for index := range p.outer {
		copy(chunk[index*p.stride+step*p.size:], row[index*p.size:][:p.size])
	}
}
