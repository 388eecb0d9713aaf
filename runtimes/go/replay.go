package rnnx

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Verdict says how a replay went.
type Verdict struct {
	Agrees   bool     `json:"agrees"`
	Steps    int      `json:"steps"`
	Calls    int      `json:"calls"`
	MaxError float64  `json:"max_error"`
	Failure  *Failure `json:"failure"`
}

// Failure is the first value that does not agree.
type Failure struct {
	Tensor   string `json:"tensor"`
	Step     int    `json:"step"`
	Index    []int  `json:"index"`
	Expected any    `json:"expected"`
	Got      any    `json:"got"`
}

// String returns the verdict for people, in one line.
func (v Verdict) String() string {
	told := fmt.Sprintf("%d steps in %d calls, largest error %.2g", v.Steps, v.Calls, v.MaxError)
	if v.Agrees {
		return "agrees: " + told
	}
	return fmt.Sprintf("disagrees: %s at step %d, index %v: expected %v, got %v; %s",
		v.Failure.Tensor, v.Failure.Step, v.Failure.Index, v.Failure.Expected, v.Failure.Got, told)
}

// Replayer is a trace being replayed through a stream.
type Replayer struct {
	contract *Contract
	trace    *Trace
	stream   *Stream
	verdict  Verdict
}

// NewReplayer opens a stream for a trace of a session's model. The errors are those of ReadTrace and Stream.
func NewReplayer(session *Session, data []byte) (*Replayer, error) {
	trace, err := ReadTrace(data, session.contract)
	if err != nil {
		return nil, err
	}
	choices := []StreamOption{}
	for name, size := range trace.Sizes {
		if name == "batch" {
			choices = append(choices, WithBatch(size))
		} else if slices.Contains(session.contract.FreeDimensions(), name) {
			choices = append(choices, WithDim(name, size))
		}
	}
	stream, err := session.Stream(choices...)
	if err != nil {
		return nil, err
	}
	return &Replayer{session.contract, trace, stream, Verdict{}}, nil
}

// Replay replays the trace that was exported beside a model, step by step, and says whether the model gives what
// was recorded. The errors are those of ReadFile, ReadTrace and Step.
func (s *Session) Replay(path string) (Verdict, error) {
	data, err := ReadFile(path, "a trace")
	if err != nil {
		return Verdict{}, err
	}
	r, err := NewReplayer(s, data)
	if err != nil {
		return Verdict{}, err
	}
	defer r.Close()
	return r.Run([]int{1})
}

// Close lets go of the stream.
func (r *Replayer) Close() error { return r.stream.Close() }

// ToStep replays the first steps, one at a time, and returns the stream, which goes with the replayer.
func (r *Replayer) ToStep(steps int) (*Stream, error) {
	if err := r.begin(); err != nil {
		return nil, err
	}
	for step := range steps {
		if _, err := r.call(step, step+1); err != nil {
			return nil, err
		}
	}
	return r.stream, nil
}

// Run replays all of it in chunks of these lengths, in turn, 0 for all that is left; it stops where something
// disagrees. A model of whole sequences takes all of it at once.
func (r *Replayer) Run(chunks []int) (Verdict, error) {
	if r.contract.isWhole {
		chunks = []int{0}
	}
	err := r.run(chunks)
	r.verdict.Agrees = r.verdict.Failure == nil
	return r.verdict, err
}

// RunBlocks replays all of it through Feed, in blocks of so many entries, in turn, and then Flush, which has to
// fill up the last entries of each input that are left out.
func (r *Replayer) RunBlocks(blocks []int, omitted int) (Verdict, error) {
	err := r.runBlocks(blocks, omitted)
	r.verdict.Agrees = r.verdict.Failure == nil
	return r.verdict, err
}

func (r *Replayer) runBlocks(blocks []int, omitted int) error {
	if err := r.start(); err != nil {
		return err
	}
	left := r.inputs(0, r.trace.Steps, false)
	for _, input := range r.contract.Inputs {
		if axis := r.timeAxis(input, left); axis >= 0 {
			left[input.Name] = left[input.Name].entries(axis, 0, left[input.Name].Shape[axis]-omitted, 0)
		}
	}
	for turn := 0; r.verdict.Failure == nil; turn++ {
		block, taken := Inputs{}, 0
		for _, input := range r.contract.Inputs {
			value, ok := left[input.Name]
			axis := r.timeAxis(input, left)
			if ok && axis >= 0 {
				count := value.Shape[axis]
				if length := blocks[turn%len(blocks)]; length > 0 {
					count = min(length, count)
				}
				left[input.Name] = value.entries(axis, count, value.Shape[axis], 0)
				value = value.entries(axis, 0, count, 0)
				taken += count
			}
			if ok {
				block[input.Name] = value
			}
		}
		run := r.stream.Flush
		if taken > 0 {
			run = func() (Outputs, error) { return r.stream.Feed(block) }
		}
		outputs, err := run()
		if err != nil {
			return err
		}
		begin := r.verdict.Steps
		r.verdict.Steps = int(r.stream.Position())
		r.verdict.Calls++
		if end := r.verdict.Steps; end > begin {
			r.compareOutputs(r.rows(outputs, end-begin, false), end)
			if err := r.compareStates(end-1, end); err != nil {
				return err
			}
		}
		if taken == 0 {
			return nil
		}
	}
	return nil
}

// timeAxis returns the axis of an input that is there along which a chunk has time, or -1.
func (r *Replayer) timeAxis(input Input, inputs Inputs) int {
	if _, ok := inputs[input.Name]; !ok {
		return -1
	}
	return axisIndex(r.contract.callerShape(input.Spec, input.IsLength, true), "time")
}

// start compares how all states start, and sets them to row 0.
func (r *Replayer) start() error {
	if err := r.compareStates(-1, 0); err != nil {
		return err
	}
	return r.begin()
}

func (r *Replayer) run(chunks []int) error {
	if err := r.start(); err != nil {
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
func (r *Replayer) begin() error {
	for _, state := range r.contract.States {
		if err := r.stream.SetState(state.Name, r.trace.States[state.Name].Row(0)); err != nil {
			return err
		}
	}
	return nil
}

// call runs steps begin..end-1 and returns each output as [step, ...], one row for those without time.
func (r *Replayer) call(begin, end int) (map[string]Tensor, error) {
	isStep := end-begin == 1 && r.contract.WholeOnly == ""
	run := r.stream.Run
	if isStep {
		run = r.stream.Step
	}
	r.verdict.Calls++
	outputs, err := run(r.inputs(begin, end, isStep))
	if err != nil {
		return nil, err
	}
	return r.rows(outputs, end-begin, isStep), nil
}

// inputs returns the recorded inputs of steps begin..end-1, as Step or Run takes them.
func (r *Replayer) inputs(begin, end int, isStep bool) Inputs {
	inputs := Inputs{}
	for _, input := range r.contract.Inputs {
		recorded, ok := r.trace.Inputs[input.Name]
		switch {
		case !ok:
		case input.IsLength:
			lengths, _ := Values[int64](recorded)
			left := make([]int64, len(lengths))
			for row, length := range lengths {
				left[row] = min(max(length-int64(begin), 0), int64(end-begin))
			}
			inputs[input.Name] = NewTensor(recorded.Shape, left)
		case !r.contract.IsStepped(input.Spec, false):
			inputs[input.Name] = recorded
		case isStep:
			inputs[input.Name] = recorded.Row(begin)
		default:
			inputs[input.Name] = toChunk(r.contract, input.Spec, recorded, begin, end)
		}
	}
	return inputs
}

// rows returns the outputs of some steps as [step, ...], one row for those without time.
func (r *Replayer) rows(outputs Outputs, steps int, isStep bool) map[string]Tensor {
	rows := map[string]Tensor{}
	for _, spec := range r.contract.Outputs {
		got := outputs[spec.Name]
		if !isStep && r.contract.IsStepped(spec, false) {
			rows[spec.Name] = toRows(r.contract, spec, got, r.trace.Outputs[spec.Name].Shape[1:], steps)
		} else {
			got.Shape = append([]int{1}, got.Shape...)
			rows[spec.Name] = got
		}
	}
	return rows
}

func (r *Replayer) compareOutputs(outputs map[string]Tensor, end int) {
	for _, spec := range r.contract.Outputs {
		got, expected := outputs[spec.Name], r.trace.Outputs[spec.Name]
		first := end - got.Shape[0]
		for step := first; step < end; step++ {
			isKept := func(flat int) bool { return r.isValid(spec, expected.Shape[1:], flat, step) }
			r.compareRow("output."+spec.Name, step, expected.Row(step), got.Row(step-first), isKept)
		}
	}
}

func (r *Replayer) compareStates(step, row int) error {
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
func (r *Replayer) isValid(spec Spec, shape []int, flat, step int) bool {
	for _, input := range r.contract.Inputs {
		lengths, ok := r.trace.Inputs[input.Name]
		if !ok || !input.IsLength {
			continue
		}
		row, axis := 0, 0
		for _, each := range spec.Shape {
			if each.Name == "batch" && len(lengths.Shape) > 0 {
				row = flat / count(shape[axis+1:]) % shape[axis]
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
func (r *Replayer) compareRow(tensor string, step int, expected, got Tensor, isKept func(int) bool) {
	bound := r.trace.Bounds[tensor]
	for flat := range count(expected.Shape) {
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
			r.verdict.Failure = &Failure{tensor, step, index, Plain(expected, flat), Plain(got, flat)}
		}
	}
}

// Plain returns an entry of a tensor as JSON can hold it.
func Plain(tensor Tensor, index int) any {
	switch tensor.DType {
	case Int64Type:
		values, _ := Values[int64](tensor)
		return values[index]
	case Uint64Type:
		values, _ := Values[uint64](tensor)
		return values[index]
	}
	number := tensor.Number(index)
	switch {
	case math.IsNaN(number):
		return "nan"
	case math.IsInf(number, 0):
		return strings.TrimPrefix(strings.ToLower(fmt.Sprint(number)), "+")
	default:
		return number
	}
}
