package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"rnnx"
)

// verdict says how a replay went.
type verdict struct {
	Agrees   bool     `json:"agrees"`
	Steps    int      `json:"steps"`
	Calls    int      `json:"calls"`
	MaxError float64  `json:"max_error"`
	Failure  *failure `json:"failure"`
}

// failure is the first value that does not agree.
type failure struct {
	Tensor   string `json:"tensor"`
	Step     int    `json:"step"`
	Index    []int  `json:"index"`
	Expected any    `json:"expected"`
	Got      any    `json:"got"`
}

func (v verdict) String() string {
	told := fmt.Sprintf("%d steps in %d calls, largest error %.2g", v.Steps, v.Calls, v.MaxError)
	if v.Agrees {
		return "agrees: " + told
	}
	return fmt.Sprintf("disagrees: %s at step %d, index %v: expected %v, got %v; %s",
		v.Failure.Tensor, v.Failure.Step, v.Failure.Index, v.Failure.Expected, v.Failure.Got, told)
}

// replayer is a trace being replayed through a stream.
type replayer struct {
	contract *rnnx.Contract
	trace    *rnnx.Trace
	stream   *rnnx.Stream
	verdict  verdict
}

// compare replays a trace, or the first steps of it for a snapshot.
func compare(a *arguments, session *rnnx.Session) (any, error) {
	data, err := rnnx.ReadFile(a.files[1], "a trace")
	if err != nil {
		return nil, err
	}
	trace, err := rnnx.ReadTrace(data, session.Contract())
	if err != nil {
		return nil, err
	}
	choices := []rnnx.StreamOption{}
	for name, size := range trace.Sizes {
		if name == "batch" {
			choices = append(choices, rnnx.WithBatch(size))
		} else if slices.Contains(session.Contract().FreeDimensions(), name) {
			choices = append(choices, rnnx.WithDim(name, size))
		}
	}
	stream, err := session.Stream(choices...)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	r := &replayer{session.Contract(), trace, stream, verdict{}}
	if a.set["snapshot"] {
		return r.snapshot(a.snapshot, a.after)
	}
	chunks, err := numbers(a.chunks, strconv.Atoi)
	if err != nil || slices.Min(chunks) < 0 {
		return nil, usage("lengths of chunks, 0 or more", "'"+a.chunks+"'")
	}
	if r.contract.WholeOnly != "" {
		chunks = []int{0}
	}
	err = r.run(chunks)
	r.verdict.Agrees = r.verdict.Failure == nil
	return r.verdict, err
}

// snapshot writes a snapshot of the first steps.
func (r *replayer) snapshot(path string, steps int) (any, error) {
	if err := r.begin(); err != nil {
		return nil, err
	}
	for step := range steps {
		if _, err := r.call(step, step+1); err != nil {
			return nil, err
		}
	}
	data, err := r.stream.Snapshot()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		return nil, &rnnx.Error{Code: "cannot-write", Expected: "to write " + path, Found: err.Error(), Fix: "choose another place"}
	}
	return map[string]any{"position": r.stream.Position()}, nil
}

// run replays all of it in chunks of these lengths, in turn; it stops where something disagrees.
func (r *replayer) run(chunks []int) error {
	if err := r.compareStates(-1, 0); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	for begin, turn := 0, 0; begin < r.trace.Steps && r.verdict.Failure == nil; turn++ {
		end := r.trace.Steps
		if length := chunks[turn%len(chunks)]; length > 0 {
			end = min(begin+length, end)
		}
		outputs, err := r.call(begin, end)
		if err != nil {
			return err
		}
		r.verdict.Steps = end
		r.compareOutputs(outputs, end)
		if err := r.compareStates(end-1, end); err != nil {
			return err
		}
		begin = end
	}
	return nil
}

// begin sets all states to row 0.
func (r *replayer) begin() error {
	for _, state := range r.contract.States {
		if err := r.stream.SetState(state.Name, r.trace.States[state.Name].Row(0)); err != nil {
			return err
		}
	}
	return nil
}

// call runs steps begin..end-1 and returns each output as [step, ...], one row for those without time.
func (r *replayer) call(begin, end int) (map[string]rnnx.Tensor, error) {
	isStep := end-begin == 1 && r.contract.WholeOnly == ""
	inputs := rnnx.Inputs{}
	for _, input := range r.contract.Inputs {
		recorded, ok := r.trace.Inputs[input.Name]
		switch {
		case !ok:
		case input.IsLength:
			lengths, _ := rnnx.Values[int64](recorded)
			left := make([]int64, len(lengths))
			for row, length := range lengths {
				left[row] = min(max(length-int64(begin), 0), int64(end-begin))
			}
			inputs[input.Name] = rnnx.NewTensor(recorded.Shape, left)
		case !r.contract.IsStepped(input.Spec, false):
			inputs[input.Name] = recorded
		case isStep:
			inputs[input.Name] = recorded.Row(begin)
		default:
			inputs[input.Name] = rnnx.ToChunk(r.contract, input.Spec, recorded, begin, end)
		}
	}
	r.verdict.Calls++
	run := r.stream.Run
	if isStep {
		run = r.stream.Step
	}
	outputs, err := run(inputs)
	if err != nil {
		return nil, err
	}
	rows := map[string]rnnx.Tensor{}
	for _, spec := range r.contract.Outputs {
		got := outputs[spec.Name]
		if !isStep && r.contract.IsStepped(spec, false) {
			rows[spec.Name] = rnnx.ToRows(r.contract, spec, got, r.trace.Outputs[spec.Name].Shape[1:], end-begin)
		} else {
			got.Shape = append([]int{1}, got.Shape...)
			rows[spec.Name] = got
		}
	}
	return rows, nil
}

func (r *replayer) compareOutputs(outputs map[string]rnnx.Tensor, end int) {
	for _, spec := range r.contract.Outputs {
		got, expected := outputs[spec.Name], r.trace.Outputs[spec.Name]
		first := end - got.Shape[0]
		for step := first; step < end; step++ {
			isKept := func(flat int) bool { return r.isValid(spec, expected.Shape[1:], flat, step) }
			r.compareRow("output."+spec.Name, step, expected.Row(step), got.Row(step-first), isKept)
		}
	}
}

func (r *replayer) compareStates(step, row int) error {
	for _, state := range r.contract.States {
		got, err := r.stream.State(state.Name)
		if err != nil {
			return err
		}
		r.compareRow("state."+state.Name, step, r.trace.States[state.Name].Row(row), got, func(int) bool { return true })
	}
	return nil
}

// isValid says whether the row of an entry of an output has not ended before a step.
func (r *replayer) isValid(spec rnnx.Spec, shape []int, flat, step int) bool {
	for _, input := range r.contract.Inputs {
		lengths, ok := r.trace.Inputs[input.Name]
		if !ok || !input.IsLength {
			continue
		}
		row, axis := 0, 0
		for _, each := range spec.Shape {
			if each.Name == "batch" && len(lengths.Shape) > 0 {
				row = flat / size(shape[axis+1:]) % shape[axis]
			}
			if each.String() != "time" {
				axis++
			}
		}
		return float64(step) < lengths.Number(row)
	}
	return true
}

// compareRow compares one row of a tensor, where isKept.
func (r *replayer) compareRow(tensor string, step int, expected, got rnnx.Tensor, isKept func(int) bool) {
	bound := r.trace.Bounds[tensor]
	for flat := range size(expected.Shape) {
		if !isKept(flat) {
			continue
		}
		wanted, have := expected.Number(flat), got.Number(flat)
		off := math.Abs(have - wanted)
		agrees := have == wanted || math.IsNaN(have) && math.IsNaN(wanted)
		if !math.IsNaN(off) && !math.IsInf(off, 0) {
			r.verdict.MaxError = max(r.verdict.MaxError, off/(1+math.Abs(wanted)))
			agrees = agrees || expected.DType.IsFloat() && off <= bound.Absolute+bound.Relative*math.Abs(wanted)
		}
		if !agrees && r.verdict.Failure == nil {
			index := make([]int, len(expected.Shape))
			for rest, axis := flat, len(index)-1; axis >= 0; axis-- {
				index[axis], rest = rest%expected.Shape[axis], rest/expected.Shape[axis]
			}
			r.verdict.Failure = &failure{tensor, step, index, plain(expected, flat), plain(got, flat)}
		}
	}
}
