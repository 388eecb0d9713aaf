package rnnx

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Bound is how far a value may be off: |got - expected| <= Absolute + Relative * |expected|.
type Bound struct {
	Absolute float64 `json:"atol"`
	Relative float64 `json:"rtol"`
}

// Trace is recorded inputs, outputs and states, by name: the test vectors that all languages share.
type Trace struct {
	Steps   int
	Sizes   map[string]int    // of batch and free dimensions
	Inputs  map[string]Tensor // [step, ...], or once for inputs without time; none where the default was taken
	Outputs map[string]Tensor // [step, ...]
	States  map[string]Tensor // [step+1, ...], row 0 the start
	Bounds  map[string]Bound  // of "output.NAME" and "state.NAME"
}

// ReadTrace reads a trace and checks it against the model it is for. The errors are not-safetensors, not-a-trace,
// trace-newer, trace-of-another-model and trace-invalid.
func ReadTrace(data []byte, contract *Contract) (*Trace, error) {
	file, err := ReadTensors(data, "a trace")
	if err != nil {
		return nil, err
	}
	if err := file.check("trace", contract.ID); err != nil {
		return nil, err
	}
	trace := &Trace{Inputs: map[string]Tensor{}, Outputs: map[string]Tensor{}, States: map[string]Tensor{}}
	text := file.Metadata["tolerances"]
	if err := json.Unmarshal([]byte(text), &trace.Bounds); err != nil {
		return nil, invalidTrace("tolerances as JSON", "'"+text[:min(len(text), 60)]+"'")
	}
	reader := traceReader{file, sizes{}}
	for _, input := range contract.Inputs {
		if _, ok := file.Tensors["input."+input.Name]; !ok && !input.IsRequired() {
			continue
		}
		first := ""
		if contract.IsStepped(input.Spec, input.IsLength) {
			first = "step"
		}
		if trace.Inputs[input.Name], err = reader.take("input", input.Spec, stepShape(input.Shape), first); err != nil {
			return nil, err
		}
	}
	for _, spec := range contract.Outputs {
		if trace.Outputs[spec.Name], err = reader.take("output", spec, stepShape(spec.Shape), "step"); err != nil {
			return nil, err
		}
	}
	for _, state := range contract.States {
		if trace.States[state.Name], err = reader.take("state", state.Spec, state.Shape, "step+1"); err != nil {
			return nil, err
		}
	}
	trace.Steps, trace.Sizes = reader.known["step"], reader.known
	return trace, trace.checkBounds(contract)
}

func (t *Trace) checkBounds(contract *Contract) error {
	names := []string{}
	for _, spec := range contract.Outputs {
		names = append(names, "output."+spec.Name)
	}
	for _, state := range contract.States {
		names = append(names, "state."+state.Name)
	}
	for _, name := range names {
		if _, ok := t.Bounds[name]; !ok {
			found := "none"
			if len(t.Bounds) > 0 {
				found = list(keys(t.Bounds))
			}
			return invalidTrace("a tolerance for '"+name+"'", found)
		}
	}
	if t.Steps == 0 {
		return invalidTrace("at least one step", "none")
	}
	return nil
}

// traceReader takes tensors out of a trace, checking that all agree on steps, batch and free dimensions.
type traceReader struct {
	file  *TensorFile
	known sizes
}

// take the tensor kind.NAME, of shape behind a first axis of steps: "step", "step+1" or none.
func (r *traceReader) take(kind string, spec Spec, shape []Axis, first string) (Tensor, error) {
	name := kind + "." + spec.Name
	tensor, ok := r.file.Tensors[name]
	if !ok {
		return Tensor{}, invalidTrace("a tensor '"+name+"'", r.file.names())
	}
	fitted, ok := r.fit(tensor.Shape, shape, first)
	if !ok || tensor.DType != spec.DType {
		wanted := []string{}
		if first != "" {
			wanted = append(wanted, first)
		}
		for _, axis := range shape {
			wanted = append(wanted, axis.String())
		}
		where := []string{}
		for _, key := range keys(r.known) {
			where = append(where, fmt.Sprintf("%s %d", key, r.known[key]))
		}
		expected := fmt.Sprintf("'%s' as %s", name, describe(spec.DType.String(), wanted))
		if len(where) > 0 {
			expected += " where " + strings.Join(where, ", ")
		}
		return Tensor{}, invalidTrace(expected, describe(tensor.DType.String(), tensor.Shape))
	}
	r.known = fitted
	return tensor, nil
}

func (r *traceReader) fit(actual []int, shape []Axis, first string) (sizes, bool) {
	if first == "" {
		return fit(shape, actual, r.known)
	}
	if len(actual) == 0 {
		return nil, false
	}
	steps := actual[0]
	if first == "step+1" {
		steps--
	}
	fitted, ok := fit(shape, actual[1:], r.known)
	if !ok || steps < 1 {
		return nil, false
	}
	if known, ok := fitted["step"]; ok && known != steps {
		return nil, false
	}
	return fitted.with("step", steps), true
}

// Row returns row index of [step, ...], in its memory.
func (t Tensor) Row(index int) Tensor {
	size := len(t.data) / t.Shape[0]
	return Tensor{t.DType, t.Shape[1:], t.data[index*size:][:size]}
}

// toChunk returns steps begin..end-1 of rows, [step, ...], as a chunk of spec.
func toChunk(contract *Contract, spec Spec, rows Tensor, begin, end int) Tensor {
	shape, steps := chunkOf(contract, spec, rows.Shape[1:], end-begin)
	chunk := Zeros(rows.DType, shape)
	for step := begin; step < end; step++ {
		steps.put(chunk.data, step-begin, rows.Row(step).data)
	}
	return chunk
}

// toRows returns a chunk of spec as [step, ...], with rows of a shape: the inverse of toChunk.
func toRows(contract *Contract, spec Spec, chunk Tensor, row []int, count int) Tensor {
	_, steps := chunkOf(contract, spec, row, count)
	rows := Zeros(chunk.DType, append([]int{count}, row...))
	for step := range count {
		steps.take(chunk.data, step, rows.Row(step).data)
	}
	return rows
}

func chunkOf(contract *Contract, spec Spec, row []int, count int) ([]int, pieces) {
	axes := contract.callerShape(spec, false, true)
	axis := axisIndex(axes, "time")
	shape := append([]int{}, row...)
	if axes[axis].IsMultiple {
		shape[axis] *= count
	} else {
		shape = append(append(append([]int{}, row[:axis]...), count), row[axis:]...)
	}
	return shape, piecesOf(shape, axis, axes[axis].Factor, spec.DType.Size())
}

func invalidTrace(expected, found string) error {
	return newError("trace-invalid", "a trace with "+expected, found,
		"record it again with 'rnnx export', or use the trace that belongs to this model")
}
