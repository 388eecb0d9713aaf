package rnnx

import (
	"fmt"
	"slices"
)

// Feed runs the steps that are whole, and keeps what is over for the next call. Inputs are in the shape of a
// chunk, with any number of entries along time, none too; each has a queue of its own, and as many steps run as
// the shortest has. Of an input that was given before and is left out no entries come; one without time stays as
// it was. It returns the outputs of the steps that ran, as Run does; if none did, those with time have length 0,
// and the others are left out. Errors are as for Run, and feed-length; nothing is kept then.
func (s *Stream) Feed(inputs Inputs) (Outputs, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.gate.Store(isOpen)
	contract := s.session.contract
	if contract.isWhole {
		return nil, s.wholeOnly("a call of feed")
	}
	joined, err := s.waiting.joined(contract, inputs, s.known)
	if err != nil {
		return nil, err
	}
	steps := joined.wholeSteps(contract)
	outputs, err := s.runFirst(joined, steps)
	if err == nil {
		s.waiting = joined.without(contract, steps)
	}
	return outputs, err
}

// Flush runs what waits as whole steps, the last one filled up with zeros (or what is nearest to 0 in the range of
// an input); then it is as if never fed. Waiting says before how many entries of the last step are real. It
// returns the outputs of these steps, the filled one included, as Feed does. Where outputs come late, those of the
// last steps follow, as the network ends a sequence; then the stream is over, until it is reset. The error is no-end
// where nobody can say what they are.
func (s *Stream) Flush() (Outputs, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.gate.Store(isOpen)
	late, end, err := s.session.contract.end()
	if err != nil {
		return nil, err
	}
	outputs, err := s.runFirst(s.waiting, s.waiting.stepsToFlush(s.session.contract))
	if err == nil && late > 0 {
		outputs, err = s.runEnd(outputs, late, end)
	}
	if err == nil {
		s.waiting = nil
	}
	return outputs, err
}

// end returns how many steps late the outputs come, and which state says that a sequence is over.
func (c *Contract) end() (late, state int, err error) {
	for _, output := range c.Outputs {
		late = max(late, output.Delay)
	}
	state = slices.IndexFunc(c.States, func(state State) bool { return state.IsEnd })
	if late > 0 && state < 0 {
		err = newError("no-end", fmt.Sprintf("a model that can give the last %d steps, which its outputs are late by", late),
			"one whose network ends a sequence otherwise than with zeros",
			"do without them, or give the whole sequence to a model that was exported without delay")
	}
	return late, state, err
}

// runEnd says that the sequence is over, and returns outputs with those of the steps after it behind them.
func (s *Stream) runEnd(outputs Outputs, late, end int) (Outputs, error) {
	contract := s.session.contract
	states := s.readAll()
	for index := range states[end].Len() {
		states[end].setNumber(index, 1)
	}
	s.replace(states, s.position)
	nothing := waiting{}
	for _, input := range contract.Inputs {
		axes := contract.callerShape(input.Spec, input.IsLength, true)
		if value, ok := s.waiting[input.Name]; ok && axisIndex(axes, "time") < 0 {
			nothing[input.Name] = value
		} else if axisIndex(axes, "time") >= 0 {
			nothing[input.Name] = Zeros(input.DType, sizesOf(axes, s.known))
		}
	}
	last, err := s.run(nothing.first(contract, late))
	if err != nil {
		return nil, err
	}
	for _, spec := range contract.Outputs {
		axis := axisIndex(contract.callerShape(spec, false, true), "time")
		if before, ok := outputs[spec.Name]; ok && axis >= 0 {
			last[spec.Name] = before.joined(axis, last[spec.Name])
		}
	}
	return last, nil
}

// Waiting returns how many entries of each input wait for a whole step, without those of which none does.
func (s *Stream) Waiting() map[string]int {
	counts := map[string]int{}
	for _, each := range s.waiting.timed(s.session.contract) {
		if each.entries > 0 {
			counts[each.input.Name] = each.entries
		}
	}
	return counts
}

func (s *Stream) runFirst(w waiting, steps int) (Outputs, error) {
	if steps == 0 {
		return noOutputs(s.session.contract, s.known), nil
	}
	return s.run(w.first(s.session.contract, steps))
}

// waiting is what Feed was given and no step has taken yet, by input, in the shape of a chunk; of an input
// without time the latest value. A step takes N entries along an N*time axis; blocks of other lengths are joined
// here. It is never changed.
type waiting map[string]Tensor

// timed is an input with time that was given: how many entries it has, and how many of them a step takes.
type timed struct {
	input                 Input
	axis, entries, factor int
}

func (w waiting) timed(contract *Contract) []timed {
	found := []timed{}
	for _, input := range contract.Inputs {
		shape := contract.callerShape(input.Spec, input.IsLength, true)
		axis := axisIndex(shape, "time")
		if value, ok := w[input.Name]; ok && axis >= 0 {
			found = append(found, timed{input, axis, value.Shape[axis], shape[axis].Factor})
		}
	}
	return found
}

// requireNone refuses what would take entries out of their order.
func (w waiting) requireNone(contract *Contract) error {
	if len(w) == 0 {
		return nil
	}
	for _, each := range w.timed(contract) {
		if each.entries > 0 {
			return newError("entries-waiting", "no entries waiting for a whole step",
				fmt.Sprintf("%d of '%s'", each.entries, each.input.Name), "flush first, or reset the whole stream")
		}
	}
	return nil
}

// joined returns what waits with inputs behind it, checked as if it were run.
func (w waiting) joined(contract *Contract, inputs Inputs, known sizes) (waiting, error) {
	every := Inputs{}
	for _, values := range []map[string]Tensor{w, inputs} {
		for name, value := range values {
			every[name] = value
		}
	}
	if err := checkNames(contract, every); err != nil {
		return nil, err
	}
	made := waiting{}
	for _, input := range contract.Inputs {
		before, waits := w[input.Name]
		value, given := inputs[input.Name]
		if waits {
			made[input.Name] = before
		}
		if !given {
			continue
		}
		if input.IsLength {
			return nil, newError("feed-length", "no lengths in feed, of which all entries count", "'"+input.Name+"'",
				"leave it out, or give the whole sequence to run")
		}
		if value.DType != input.DType {
			return nil, wrongDType(input.Spec, value)
		}
		shape := contract.callerShape(input.Spec, false, true)
		axis := axisIndex(shape, "time")
		if !fitsBlock(shape, value, before, known) {
			return nil, misfit(input.Spec, shape, value.Shape, known, true)
		}
		if waits && axis >= 0 {
			made[input.Name] = before.joined(axis, value)
		} else {
			made[input.Name] = value.Clone()
		}
	}
	steps := made.stepsToFlush(contract)
	if steps == 0 {
		return made, nil
	}
	taken := made.first(contract, steps)
	if _, err := matchInputs(contract, taken, known, true); err != nil {
		return nil, err
	}
	return made, checkValues(contract, taken, steps)
}

// fitsBlock says whether a tensor has the axes of a chunk, of the sizes that are known; any number along time.
func fitsBlock(shape []Axis, value, before Tensor, known sizes) bool {
	if len(value.Shape) != len(shape) || len(value.data) != count(value.Shape)*value.DType.Size() {
		return false
	}
	for index, axis := range shape {
		size, ok := known[axis.Name]
		wanted := size * axis.Factor
		if axis.Name == "" {
			wanted, ok = axis.Factor, true
		} else if !ok && before.Shape != nil {
			wanted, ok = before.Shape[index], true
		}
		if axis.Name != "time" && ok && value.Shape[index] != wanted {
			return false
		}
	}
	return true
}

// wholeSteps returns how many steps can be run: as many as the shortest of the inputs that were given has.
func (w waiting) wholeSteps(contract *Contract) int {
	steps := -1
	for _, each := range w.timed(contract) {
		if has := each.entries / each.factor; steps < 0 || has < steps {
			steps = has
		}
	}
	return max(steps, 0)
}

// stepsToFlush returns how many steps take all that waits, the last of them filled up.
func (w waiting) stepsToFlush(contract *Contract) int {
	steps := 0
	for _, each := range w.timed(contract) {
		steps = max(steps, (each.entries+each.factor-1)/each.factor)
	}
	return steps
}

// first returns the inputs of the first steps, filled up with zeros, or what is nearest to 0 in a range.
func (w waiting) first(contract *Contract, steps int) Inputs {
	taken := Inputs{}
	for name, value := range w {
		taken[name] = value
	}
	for _, each := range w.timed(contract) {
		filling := 0.0
		if each.input.Range != nil {
			filling = min(max(0, each.input.Range.Least), each.input.Range.Largest)
		}
		name := each.input.Name
		taken[name] = taken[name].entries(each.axis, 0, steps*each.factor, filling)
	}
	return taken
}

// without returns what waits behind the first steps.
func (w waiting) without(contract *Contract, steps int) waiting {
	left := waiting{}
	for name, value := range w {
		left[name] = value
	}
	for _, each := range w.timed(contract) {
		name := each.input.Name
		left[name] = left[name].entries(each.axis, steps*each.factor, each.entries, 0)
	}
	return left
}

// noOutputs returns the outputs of no steps: those with time, of length 0. A size that only a run tells is 0.
func noOutputs(contract *Contract, known sizes) Outputs {
	outputs := Outputs{}
	for _, spec := range contract.Outputs {
		axes := contract.callerShape(spec, false, true)
		if axisIndex(axes, "time") < 0 {
			continue
		}
		outputs[spec.Name] = Zeros(spec.DType, sizesOf(axes, known))
	}
	return outputs
}

// sizesOf returns a shape in numbers; of what is not known, such as time, 0.
func sizesOf(axes []Axis, known sizes) []int {
	shape := []int{}
	for _, axis := range axes {
		size := axis.Factor
		if axis.Name != "" {
			size *= known[axis.Name]
		}
		shape = append(shape, size)
	}
	return shape
}

// entries returns a copy of entries begin..end-1 along an axis; where there are fewer, filling stands for them.
func (t Tensor) entries(axis, begin, end int, filling float64) Tensor {
	shape := append([]int{}, t.Shape...)
	shape[axis] = max(0, end-begin)
	made := Zeros(t.DType, shape)
	for index := 0; filling != 0 && index < made.Len(); index++ {
		made.setNumber(index, filling)
	}
	last := min(end, t.Shape[axis])
	from, to := piecesOf(t.Shape, axis, 1, t.DType.Size()), piecesOf(shape, axis, 1, t.DType.Size())
	for piece := 0; begin < last && piece < from.outer; piece++ {
		start := piece * from.stride
		copy(made.data[piece*to.stride:], t.data[start+begin*from.size:start+last*from.size])
	}
	return made
}

// joined returns a tensor with another behind it along an axis.
func (t Tensor) joined(axis int, other Tensor) Tensor {
	made := t.entries(axis, 0, t.Shape[axis]+other.Shape[axis], 0)
	from, to := piecesOf(other.Shape, axis, 1, t.DType.Size()), piecesOf(made.Shape, axis, 1, t.DType.Size())
	for piece := range from.outer {
		start := piece*to.stride + t.Shape[axis]*to.size
		copy(made.data[start:], other.data[piece*from.stride:(piece+1)*from.stride])
	}
	return made
}
