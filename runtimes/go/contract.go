package rnnx

import (
	"fmt"
	"math"
	"slices"
)

// Spec is a tensor of the model: name, dtype, and shape with named axes.
type Spec struct {
	Name  string
	DType DType
	Shape []Axis
	Delay int // of an output: how many steps late it comes
}

// Input is what the caller gives.
type Input struct {
	Spec
	Default  *Constant // what stands in for the input if it is left out; nil if it must be given
	IsLength bool      // whether it counts the valid steps of each row
	Range    *Range    // what it was made for: other integers are refused, floats not; nil if that is not said
}

// Range is the least and the largest of some values.
type Range struct {
	Least, Largest float64
}

func (r Range) has(number float64) bool { return r.Least <= number && number <= r.Largest }

// State is what is carried from one step to the next.
type State struct {
	Spec
	Input   string // the graph input that takes its value
	Output  string // the graph output that gives its next value
	Initial Constant
	IsEnd   bool // whether 1 in it says that the sequence is over
}

// Constant is a number, or nested lists of numbers that broadcast to a shape.
type Constant struct {
	shape   []int
	numbers []float64
}

// Vocabulary says what the ids of a model over symbols mean.
type Vocabulary struct {
	Input   string // takes ids
	Output  string // gives one score per symbol
	Symbols []rune // id i means the i-th
	ids     map[rune]int
}

// Contract says what a model takes, gives and carries; see docs/contract.md.
type Contract struct {
	ID             string // identity of the model, "sha256:..."
	Name           string // for people
	Inputs         []Input
	Outputs        []Spec
	States         []State
	StepsPerSecond float64 // 0 where the steps have no rate
	WholeOnly      string  // the reason why the model takes only whole sequences, or ""
	isWhole        bool    // whether there is a reason, be it an empty one
	Vocabulary     *Vocabulary
	User           map[string]any // what the author handed on, as it is
}

// IsRequired says whether a caller has to give the input.
func (i Input) IsRequired() bool { return i.Default == nil && !i.IsLength }

// StepShape returns the shape of one step in numbers, each name replaced by its size.
func (s Spec) StepShape(size func(name string) int) []int {
	return numbersOf(stepShape(s.Shape), size)
}

// ChunkShape returns the shape of a chunk of a model with time, each other name replaced by its size.
func (s Spec) ChunkShape(steps int, size func(name string) int) []int {
	return numbersOf(s.Shape, func(name string) int {
		if name == "time" {
			return steps
		}
		return size(name)
	})
}

func numbersOf(shape []Axis, size func(string) int) []int {
	numbers := make([]int, len(shape))
	for index, axis := range shape {
		numbers[index] = axis.Factor
		if axis.Name != "" {
			numbers[index] *= size(axis.Name)
		}
	}
	return numbers
}

// bounds returns the range that integers are held to: that of floats says only what to test with.
func (i Input) bounds() *Range {
	if i.DType.IsFloat() {
		return nil
	}
	return i.Range
}

// checkValues checks that a range is one of numbers of the dtype, and that the default fits the shape and lies in it.
func (i Input) checkValues(takesSymbols bool) error {
	if i.Range != nil {
		for _, other := range []struct {
			what    string
			isTaken bool
		}{{"truth values", i.DType == BoolType}, {"lengths", i.IsLength}, {"symbols", takesSymbols}} {
			if other.isTaken {
				return invalid(fmt.Sprintf("a range of '%s', which takes %s", i.Name, other.what))
			}
		}
		if !(isBound(i.DType, i.Range.Least) && isBound(i.DType, i.Range.Largest) && i.Range.Least <= i.Range.Largest) {
			return invalid(fmt.Sprintf("a range of '%s' that is not the least and the largest of %s", i.Name, i.DType))
		}
	}
	if i.Default == nil {
		return nil
	}
	bounds := i.bounds()
	isOutside := func(number float64) bool { return bounds != nil && !bounds.has(math.RoundToEven(number)) }
	if !i.Default.fits(i.Spec) || slices.ContainsFunc(i.Default.numbers, isOutside) {
		return misfitting(i.Spec)
	}
	return nil
}

// isBound says whether a number can bound values of a dtype: finite, and of integers whole and below 2^53, where
// it is exact.
func isBound(dtype DType, number float64) bool {
	if dtype.IsFloat() {
		return !math.IsInf(number, 0)
	}
	isWhole := number == math.RoundToEven(number) && math.Abs(number) < math.Ldexp(1, 53)
	return isWhole && allHeld(dtype, []float64{number})
}

// fits says whether the constant broadcasts to a shape and varies along no named axis.
func (c Constant) fits(spec Spec) bool {
	shape := spec.Shape
	if len(c.shape) > len(shape) || !allHeld(spec.DType, c.numbers) {
		return false
	}
	for index, size := range c.shape {
		axis := shape[len(shape)-len(c.shape)+index]
		if size != 1 && (axis.Name != "" || size != axis.Factor) {
			return false
		}
	}
	return true
}

// allHeld says whether all numbers have a counterpart in a dtype: integers once rounded, bool as 0 and 1.
func allHeld(dtype DType, numbers []float64) bool {
	end := math.Ldexp(1, 8*dtype.Size())
	least := 0.0
	switch dtype {
	case Float16Type, Float32Type, Float64Type:
		return true
	case BoolType:
		end = 2
	case Int8Type, Int16Type, Int32Type, Int64Type:
		end /= 2
		least = -end
	}
	return !slices.ContainsFunc(numbers, func(number float64) bool {
		whole := math.RoundToEven(number)
		return !(least <= whole && whole < end) || dtype == BoolType && whole != number
	})
}

// fill returns the numbers broadcast to a shape, as numpy does: aligned at the last axis.
func (c Constant) fill(dtype DType, shape []int) Tensor {
	tensor := Zeros(dtype, shape)
	for flat := range count(shape) {
		rest, index, stride := flat, 0, 1
		for axis := len(shape) - 1; axis >= 0; axis-- {
			if own := axis - len(shape) + len(c.shape); own >= 0 && c.shape[own] != 1 {
				index += rest % shape[axis] * stride
				stride *= c.shape[own]
			}
			rest /= shape[axis]
		}
		tensor.setNumber(flat, c.numbers[index])
	}
	return tensor
}

// HasTime says whether the graph itself has a time axis. Without one it is a step model.
func (c *Contract) HasTime() bool {
	for _, input := range c.Inputs {
		if axisIndex(input.Shape, "time") >= 0 {
			return true
		}
	}
	return false
}

// HasBatch says whether several sequences can run side by side.
func (c *Contract) HasBatch() bool {
	for _, shape := range c.shapes() {
		if axisIndex(shape, "batch") >= 0 {
			return true
		}
	}
	return false
}

// FreeDimensions returns the names, other than batch and time, that inputs and states have, in order.
func (c *Contract) FreeDimensions() []string {
	seen := map[string]bool{"": true, "batch": true, "time": true}
	names := []string{}
	for _, shape := range c.shapes() {
		for _, axis := range shape {
			if !seen[axis.Name] {
				seen[axis.Name] = true
				names = append(names, axis.Name)
			}
		}
	}
	return names
}

func (c *Contract) shapes() [][]Axis {
	shapes := [][]Axis{}
	for _, input := range c.Inputs {
		shapes = append(shapes, input.Shape)
	}
	for _, state := range c.States {
		shapes = append(shapes, state.Shape)
	}
	return shapes
}

// callerShape returns the shape of an input or output as a caller sees it: of a chunk if whole, else of a step.
func (c *Contract) callerShape(spec Spec, isLength, whole bool) []Axis {
	switch {
	case !whole:
		return stepShape(spec.Shape)
	case c.HasTime() || isLength:
		return spec.Shape
	default:
		return withTime(spec.Shape)
	}
}

// IsStepped says whether each step of a chunk has its own value of spec; else one value holds for the chunk.
func (c *Contract) IsStepped(spec Spec, isLength bool) bool {
	return axisIndex(c.callerShape(spec, isLength, true), "time") >= 0
}

// check what the types cannot say.
func (c *Contract) check() error {
	inputs, outputs, states := []string{}, []string{}, []string{}
	specs := []Spec{}
	for _, input := range c.Inputs {
		inputs, specs = append(inputs, input.Name), append(specs, input.Spec)
	}
	for _, spec := range c.Outputs {
		outputs, specs = append(outputs, spec.Name), append(specs, spec)
	}
	named := map[string][]string{"input": inputs, "output": outputs}
	for _, state := range c.States {
		named["input"], named["output"] = append(named["input"], state.Input), append(named["output"], state.Output)
		states, specs = append(states, state.Name), append(specs, state.Spec)
	}
	named["state"] = states
	for _, kind := range []string{"input", "output", "state"} {
		if err := unique(kind, named[kind]); err != nil {
			return err
		}
	}
	for _, spec := range specs {
		counts := map[string]int{}
		for _, axis := range spec.Shape {
			counts[axis.Name]++
		}
		for _, reserved := range []string{"batch", "time"} {
			if counts[reserved] > 1 {
				return invalid(fmt.Sprintf("'%s' has two %s axes", spec.Name, reserved))
			}
		}
	}
	for _, state := range c.States {
		if axisIndex(state.Shape, "time") >= 0 {
			return invalid(fmt.Sprintf("state '%s' has a time axis", state.Name))
		}
		if !state.Initial.fits(state.Spec) {
			return misfitting(state.Spec)
		}
	}
	for _, input := range c.Inputs {
		takesSymbols := c.Vocabulary != nil && c.Vocabulary.Input == input.Name
		if err := input.checkValues(takesSymbols); err != nil {
			return err
		}
		alone := len(input.Shape) == 0 || len(input.Shape) == 1 && input.Shape[0].Name == "batch"
		if input.IsLength && (input.DType != Int64Type || !alone) {
			found := describe(input.DType.String(), input.Shape)
			return invalid(fmt.Sprintf("length input '%s' is %s, not int64[batch]", input.Name, found))
		}
	}
	return c.checkVocabulary(inputs, outputs)
}

func (c *Contract) checkVocabulary(inputs, outputs []string) error {
	vocabulary := c.Vocabulary
	if vocabulary == nil {
		return nil
	}
	if !slices.Contains(inputs, vocabulary.Input) {
		return invalid(fmt.Sprintf("vocabulary input '%s' is no input", vocabulary.Input))
	}
	if !slices.Contains(outputs, vocabulary.Output) {
		return invalid(fmt.Sprintf("vocabulary output '%s' is no output", vocabulary.Output))
	}
	taken := c.Inputs[slices.IndexFunc(c.Inputs, func(input Input) bool { return input.Name == vocabulary.Input })]
	given := c.Outputs[slices.IndexFunc(c.Outputs, func(output Spec) bool { return output.Name == vocabulary.Output })]
	if taken.DType != Int64Type {
		return invalid(fmt.Sprintf("vocabulary input '%s' is not int64", taken.Name))
	}
	count, rank := len(vocabulary.Symbols), len(given.Shape)
	if rank == 0 || given.Shape[rank-1] != (Axis{Factor: count}) {
		return invalid(fmt.Sprintf("%d symbols, and not as many scores in '%s'", count, given.Name))
	}
	vocabulary.ids = make(map[rune]int, count)
	for id, symbol := range vocabulary.Symbols {
		if _, ok := vocabulary.ids[symbol]; ok {
			return invalid(fmt.Sprintf("two entries for symbol '%c'", symbol))
		}
		vocabulary.ids[symbol] = id
	}
	return nil
}

func unique(kind string, names []string) error {
	seen := map[string]bool{}
	for _, name := range names {
		if name == "" {
			return invalid("an " + kind + " without a name")
		}
		if seen[name] {
			return invalid(fmt.Sprintf("two entries for %s '%s'", kind, name))
		}
		seen[name] = true
	}
	return nil
}

func misfitting(spec Spec) error {
	return invalid(fmt.Sprintf("initial or default of '%s' does not fit %s", spec.Name, describe(spec.DType.String(), spec.Shape)))
}

func invalid(found string) error {
	return newError("contract-invalid", "a contract as docs/contract.md describes", found,
		"export the model again with 'rnnx export'")
}
