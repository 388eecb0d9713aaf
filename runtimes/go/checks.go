package rnnx

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// What a caller hands in is held against the contract before the engine sees it: engines read out of bounds, or
// abort the process, on values that do not fit.

// openSizes returns the sizes a stream is opened with, batch included.
func openSizes(contract *Contract, batch int, dims sizes) (sizes, error) {
	free := contract.FreeDimensions()
	for _, name := range keys(dims) {
		if !slices.Contains(free, name) {
			return nil, unknown("dimension", name, free)
		}
		if dims[name] < 1 {
			return nil, newError("wrong-dimension", name+" as a number of 1 or more", strconv.Itoa(dims[name]), "change it")
		}
	}
	if batch < 1 {
		return nil, newError("empty-batch", "batch as a number of 1 or more", strconv.Itoa(batch), "change it")
	}
	if batch != 1 && !contract.HasBatch() {
		return nil, newError("no-batch", "batch 1, since the model has no batch axis", strconv.Itoa(batch),
			"open one stream per sequence, or export with a batch axis")
	}
	for _, state := range contract.States {
		for _, axis := range state.Shape {
			if axis.Name != "" && axis.Name != "batch" && dims[axis.Name] == 0 {
				bound := "nothing"
				if len(dims) > 0 {
					bound = list(keys(dims))
				}
				expected := fmt.Sprintf("the size of '%s', which state '%s' has", axis.Name, state.Name)
				return nil, newError("missing-dimension", expected, "dims with "+bound, "bind it when opening the stream")
			}
		}
	}
	known := dims.with("batch", batch)
	for _, state := range contract.States {
		// Refuse a state of more bytes than an address can count.
		bytes := float64(state.DType.Size())
		for _, axis := range state.Shape {
			bytes *= float64(axis.Factor) * float64(max(known[axis.Name], 1))
		}
		if bytes > math.MaxInt/2 {
			return nil, newError("out-of-memory", "sizes whose states fit into memory",
				fmt.Sprintf("state '%s' as %s%s", state.Name, state.DType, filled(state.Shape, known)),
				"open the stream with smaller ones")
		}
	}
	return known, nil
}

// matchInputs returns the size of every dimension, once names, dtypes and shapes fit: of a chunk if whole, else
// of one step.
func matchInputs(contract *Contract, inputs Inputs, known sizes, whole bool) (sizes, error) {
	if err := checkNames(contract, inputs); err != nil {
		return nil, err
	}
	if !whole {
		known = known.with("time", 1)
	}
	for _, input := range contract.Inputs {
		tensor, ok := inputs[input.Name]
		if !ok {
			continue
		}
		if tensor.DType != input.DType {
			return nil, wrongDType(input.Spec, tensor)
		}
		shape := contract.callerShape(input.Spec, input.IsLength, whole)
		fitted, ok := fit(shape, tensor.Shape, known)
		if !ok || count(tensor.Shape) == 0 {
			return nil, misfit(input.Spec, shape, tensor.Shape, known, whole)
		}
		known = fitted
		if err := checkCount(input.Spec, shape, tensor, known); err != nil {
			return nil, err
		}
	}
	for _, name := range append([]string{"time"}, contract.FreeDimensions()...) {
		if _, ok := known[name]; !ok {
			fix := "bind it when opening the stream"
			if name == "time" {
				fix = "give one of the optional inputs"
			}
			return nil, newError("missing-dimension", "an input that tells the size of '"+name+"'",
				"none given that has such an axis", fix)
		}
	}
	return known, nil
}

func checkNames(contract *Contract, inputs Inputs) error {
	names, needed := []string{}, []string{}
	for _, input := range contract.Inputs {
		names = append(names, input.Name)
		if input.IsRequired() {
			needed = append(needed, input.Name)
		}
	}
	for _, name := range keys(inputs) {
		if !slices.Contains(names, name) {
			return unknown("input", name, names)
		}
	}
	for _, name := range needed {
		if _, ok := inputs[name]; !ok {
			return newError("missing-input", "a value for each of the inputs "+list(needed),
				"none for '"+name+"'", "add '"+name+"'")
		}
	}
	return nil
}

// checkValues checks the values of inputs whose shapes fit.
func checkValues(contract *Contract, inputs Inputs, time int) error {
	for _, input := range contract.Inputs {
		if tensor, ok := inputs[input.Name]; ok {
			check := checkOf(contract, input, time)
			if flat := check.firstWrong(tensor); flat >= 0 {
				return check.problem(input.Spec, tensor, flat)
			}
		}
	}
	return nil
}

// check is what is checked about the values of one input: finite, or in a range if that has a kind.
type check struct {
	isFinite bool
	kind     string // "symbol", "length" or "value"
	within   Range
}

// checkOf an input in a call of so many steps.
func checkOf(contract *Contract, input Input, time int) check {
	switch {
	case contract.Vocabulary != nil && contract.Vocabulary.Input == input.Name:
		return check{kind: "symbol", within: Range{0, float64(len(contract.Vocabulary.Symbols) - 1)}}
	case input.IsLength:
		return check{kind: "length", within: Range{0, float64(time)}}
	case input.bounds() != nil:
		return check{kind: "value", within: *input.Range}
	default:
		return check{isFinite: input.DType.IsFloat()}
	}
}

// firstWrong returns the index of the first value that may not reach the engine, or -1.
func (c check) firstWrong(tensor Tensor) int {
	switch {
	case c.isFinite && tensor.DType == Float32Type:
		values, _ := Values[float32](tensor)
		return slices.IndexFunc(values, func(value float32) bool { return value-value != 0 })
	case c.isFinite && tensor.DType == Float64Type:
		values, _ := Values[float64](tensor)
		return slices.IndexFunc(values, func(value float64) bool { return value-value != 0 })
	case c.isFinite:
		values, _ := Values[Float16](tensor)
		return slices.IndexFunc(values, func(value Float16) bool { return value&0x7c00 == 0x7c00 })
	case c.kind != "":
		for index := range count(tensor.Shape) {
			if !c.within.has(tensor.Number(index)) {
				return index
			}
		}
	}
	return -1
}

func (c check) problem(spec Spec, tensor Tensor, flat int) error {
	code, allowed := "non-finite", "finite values"
	fix := "mend the source of the NaN or infinity; one of them would spoil every later step"
	if !c.isFinite {
		words := map[string][2]string{
			"symbol": {"ids", "encode the text with the model's own vocabulary"},
			"length": {"lengths", "give the number of valid steps of each row in this call"},
			"value":  {"values", "give values in the range that the model was exported for"},
		}[c.kind]
		code, fix = c.kind+"-range", words[1]
		allowed = fmt.Sprintf("%s in %s..%s", words[0], shown(c.within.Least), shown(c.within.Largest))
	}
	place := "as its value"
	if len(tensor.Shape) > 0 {
		place = "at index [" + list(indexOf(tensor.Shape, flat)) + "]"
	}
	return newError(code, fmt.Sprintf("%s in '%s'", allowed, spec.Name), shown(tensor.Number(flat))+" "+place, fix)
}

// indexOf entry flat in a tensor of a shape.
func indexOf(shape []int, flat int) []int {
	index := make([]int, len(shape))
	for axis := len(shape) - 1; axis >= 0; axis-- {
		index[axis], flat = flat%shape[axis], flat/shape[axis]
	}
	return index
}

// shown is a number as all languages write it in messages.
func shown(number float64) string {
	switch {
	case math.IsNaN(number):
		return "nan"
	case math.IsInf(number, 1):
		return "inf"
	case math.IsInf(number, -1):
		return "-inf"
	default:
		return strconv.FormatFloat(number, 'f', -1, 64)
	}
}

// checkState returns the position of a state once a value for it has the right name, dtype and shape, and no NaN.
func checkState(contract *Contract, name string, value Tensor, known sizes) (int, error) {
	position, err := stateIndex(contract, name)
	if err != nil {
		return 0, err
	}
	spec := contract.States[position].Spec
	if value.DType != spec.DType {
		return 0, wrongDType(spec, value)
	}
	if shape, _ := resolve(spec.Shape, known); !slices.Equal(shape, value.Shape) {
		return 0, wrongShape(spec, spec.Shape, known, describe(value.DType.String(), value.Shape))
	}
	if err := checkCount(spec, spec.Shape, value, known); err != nil {
		return 0, err
	}
	if place, found := nanIn(value); found {
		return 0, newError("non-finite", "state '"+name+"' without NaN (infinities are allowed)", place,
			"mend where it comes from; a NaN stays in a state for ever")
	}
	return position, nil
}

// nanIn says where the first NaN of a tensor stands, in words.
func nanIn(value Tensor) (place string, found bool) {
	for flat := 0; value.DType.IsFloat() && flat < count(value.Shape); flat++ {
		if math.IsNaN(value.Number(flat)) {
			return "nan at index [" + list(indexOf(value.Shape, flat)) + "]", true
		}
	}
	return "", false
}

func stateIndex(contract *Contract, name string) (int, error) {
	names := []string{}
	for index, state := range contract.States {
		if state.Name == name {
			return index, nil
		}
		names = append(names, state.Name)
	}
	return 0, unknown("state", name, names)
}

// startsOf returns the start of every state: the caller's where named there, else the contract's.
func startsOf(contract *Contract, known sizes, initial map[string]Tensor) ([]Tensor, error) {
	starts := []Tensor{}
	for _, state := range contract.States {
		shape, _ := resolve(state.Shape, known)
		starts = append(starts, state.Initial.fill(state.DType, shape))
	}
	for _, name := range keys(initial) {
		position, err := checkState(contract, name, initial[name], known)
		if err != nil {
			return nil, err
		}
		starts[position] = initial[name].Clone()
	}
	return starts, nil
}

func unknown(kind, name string, known []string) error {
	listed := list(known)
	fix := "use one of the names that 'rnnx inspect' lists as " + kind + "s"
	if kind == "input" {
		fix = "correct or remove it; 'rnnx inspect' lists the inputs"
	} else if len(known) == 0 {
		listed = "(none)"
	}
	return newError("unknown-"+kind, kind+"s "+listed, "'"+name+"'", fix)
}

func wrongDType(spec Spec, tensor Tensor) error {
	return newError("wrong-dtype", fmt.Sprintf("'%s' as %s", spec.Name, spec.DType),
		describe(tensor.DType.String(), tensor.Shape), "convert it to "+spec.DType.String())
}

func wrongShape(spec Spec, shape []Axis, known sizes, found string) *Error {
	return newError("wrong-shape", fmt.Sprintf("'%s' as %s%s", spec.Name, spec.DType, filled(shape, known)), found,
		"reshape it, or open the stream with the batch and dims that you mean")
}

// checkCount checks that there are as many entries as the shape says.
func checkCount(spec Spec, shape []Axis, tensor Tensor, known sizes) error {
	entries := len(tensor.data) / tensor.DType.Size()
	if entries == count(tensor.Shape) {
		return nil
	}
	return wrongShape(spec, shape, known, fmt.Sprintf("[%s] with %d entries", list(tensor.Shape), entries))
}

// misfit is the error for an input whose sizes do not fit shape, known or each other.
func misfit(spec Spec, shape []Axis, actual []int, known sizes, whole bool) error {
	found := "[" + list(actual) + "]"
	for _, name := range []string{"batch", "time"} {
		if axis := axisIndex(shape, name); axis >= 0 && len(actual) == len(shape) && actual[axis] == 0 {
			expected := fmt.Sprintf("'%s' as %s%s with at least one entry", spec.Name, spec.DType, filled(shape, known))
			return newError("empty-"+name, expected, fmt.Sprintf("%s: a %s of 0", found, name),
				"leave the call out when there is nothing to run")
		}
	}
	problem := wrongShape(spec, shape, known, found)
	if time := axisIndex(shape, "time"); whole && time >= 0 && len(actual) == len(shape) {
		factor := shape[time].Factor
		full := slices.Clone(actual)
		full[time] = (actual[time] + factor - 1) / factor * factor
		if _, ok := fit(shape, full, known); ok && full[time] != actual[time] {
			problem.Found = fmt.Sprintf("%s, where %d is no multiple of %d", found, actual[time], factor)
			problem.Fix = fmt.Sprintf("fill it up to %d, or give it to feed, which keeps what is over", full[time])
			return problem
		}
	}
	if len(actual) == len(shape)+1 && !whole {
		problem.Found, problem.Fix = found+", which has one axis more than a step", "use run for chunks"
	} else if _, ok := withAxis("time", shape, actual, known); ok && whole {
		problem.Found, problem.Fix = found+", which has one axis less than a chunk", "use step for one step"
	} else if batched, ok := withAxis("batch", shape, actual, known); ok {
		problem.Found = found + ", which has no batch axis"
		problem.Fix = "reshape it to [" + list(batched) + "], a batch of one row"
	}
	return problem
}

// withAxis returns sizes with a 1 for the axis called name; false where they do not fit shape and known so.
func withAxis(name string, shape []Axis, actual []int, known sizes) ([]int, bool) {
	axis := axisIndex(shape, name)
	if axis < 0 || len(actual) != len(shape)-1 {
		return nil, false
	}
	more := slices.Insert(slices.Clone(actual), axis, 1)
	_, ok := fit(shape, more, known)
	return more, ok
}
