package rnnx

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
)

// keptBatches is how many sizes of batches keep their buffers.
const keptBatches = 32

// Pool steps many streams of a session, each of batch 1, as the rows of one batch.
//
// Which streams step is free at each call: those that are left out stay as they are. A pool is used by one goroutine
// at a time, and so is each stream.
type Pool struct {
	session *Session
	batches []*Stream // of as many rows as were stepped; the latest is the last
	gate    atomic.Int32
}

// Pool opens a pool. The error codes are whole-only, no-batch, shared-state, shared-output and session-closed.
func (s *Session) Pool() (*Pool, error) {
	if err := s.contract.checkPooled(); err != nil {
		return nil, err
	}
	if err := s.join(); err != nil {
		return nil, err
	}
	return &Pool{session: s}, nil
}

func (c *Contract) checkPooled() error {
	if c.isWhole {
		return newError("whole-only", "a model that can be stepped",
			"one that takes whole sequences, because of "+c.WholeOnly,
			"open a stream, and give it the whole sequence in one call of run")
	}
	if !c.HasBatch() {
		return newError("no-batch", "a model with a batch axis, whose rows the streams of a pool are",
			"none in any input or state", "open one stream per sequence, or export with a batch axis")
	}
	check := func(kind string, spec Spec) error {
		if axisIndex(spec.Shape, "batch") >= 0 {
			return nil
		}
		return newError("shared-"+kind, kind+"s with a batch axis, so that each stream of a pool has its own",
			kind+" '"+spec.Name+"' shared by all rows", "open one stream per sequence")
	}
	for _, state := range c.States {
		if err := check("state", state.Spec); err != nil {
			return err
		}
	}
	for _, output := range c.Outputs {
		if err := check("output", output); err != nil {
			return err
		}
	}
	return nil
}

// Step runs one step of each of the streams, with the inputs of each as its own Step takes them, and returns the
// outputs of each, which are yours to keep: to rounding what it gives alone. If anything is refused no stream has
// moved, and the message says whose input it was. The error codes are those of Stream.Step, and streams-disagree for
// a stream of another session, one of a batch, one that is named twice, other free dimensions, or another value of an
// input without a batch axis.
func (p *Pool) Step(streams []*Stream, inputs []Inputs) ([]Outputs, error) {
	if !p.gate.CompareAndSwap(isOpen, isBusy) {
		if p.gate.Load() == isShut {
			return nil, newError("stream-closed", "a pool that is open", "one that was closed", "open another pool")
		}
		return nil, newError("stream-busy", "one thread at a time on a pool", "a call while another is running",
			"let one thread step it, and the others hand it what they have, by a queue")
	}
	defer p.gate.Store(isOpen)
	if len(streams) != len(inputs) {
		return nil, disagree("as many inputs as streams", fmt.Sprintf("%d and %d", len(inputs), len(streams)))
	}
	for place, stream := range streams {
		if err := stream.enter(); err != nil {
			if earlier := slices.Index(streams[:place], stream); earlier >= 0 {
				return nil, disagree("each stream once in a call", fmt.Sprintf("stream %d again as stream %d", earlier, place))
			}
			return nil, err
		}
		defer stream.gate.Store(isOpen)
	}
	if len(streams) == 0 {
		return []Outputs{}, nil
	}
	known, err := p.match(streams, inputs)
	if err != nil {
		return nil, err
	}
	joined, err := p.joined(inputs, known)
	if err != nil {
		return nil, err
	}
	batch, err := p.batch(known.with("batch", len(streams)))
	if err != nil {
		return nil, err
	}
	return batch.runRows(streams, joined)
}

// Close lets go of the buffers of the pool; its streams stay as they are. Closing twice is fine.
func (p *Pool) Close() error {
	if !p.gate.CompareAndSwap(isOpen, isShut) {
		if p.gate.Load() == isShut {
			return nil
		}
		return newError("stream-busy", "a pool that is not stepping", "a call that is running", "close it afterwards")
	}
	for _, batch := range p.batches {
		batch.Close()
	}
	p.session.leave()
	return nil
}

// match checks the inputs of each stream as a step of it alone would, and returns the sizes of that step.
func (p *Pool) match(streams []*Stream, inputs []Inputs) (sizes, error) {
	contract := p.session.contract
	var first sizes
	for place, stream := range streams {
		if stream.session != p.session {
			return nil, disagree("streams of the session that the pool was opened on", "one of another session")
		}
		if stream.batch != 1 {
			return nil, disagree("streams of batch 1", "a stream of a larger batch")
		}
		if err := stream.waiting.requireNone(contract); err != nil {
			return nil, err
		}
		known, err := matchInputs(contract, inputs[place], stream.known, false)
		if err == nil {
			err = checkValues(contract, inputs[place], 1)
		}
		if err != nil {
			problem := *err.(*Error)
			problem.Found += fmt.Sprintf(", in the input of stream %d", place)
			return nil, &problem
		}
		if place == 0 {
			first = known
		}
		for _, name := range contract.FreeDimensions() {
			if known[name] != first[name] {
				return nil, disagree(fmt.Sprintf("one size of '%s' in all streams that run together", name),
					fmt.Sprintf("%d in stream 0, %d in stream %d", first[name], known[name], place))
			}
		}
	}
	return first, nil
}

// joined returns the inputs of all streams as those of one batch.
func (p *Pool) joined(inputs []Inputs, known sizes) (Inputs, error) {
	contract, joined := p.session.contract, Inputs{}
	for _, input := range contract.Inputs {
		axes := contract.callerShape(input.Spec, input.IsLength, false)
		shape, _ := resolve(axes, known)
		standIn := Zeros(input.DType, shape)
		if input.IsLength {
			standIn = Constant{nil, []float64{1}}.fill(input.DType, shape)
		} else if input.Default != nil {
			standIn = input.Default.fill(input.DType, shape)
		}
		axis := axisIndex(axes, "batch")
		whole, _ := resolve(axes, known.with("batch", len(inputs)))
		to := Zeros(input.DType, whole)
		for row, each := range inputs {
			value, ok := each[input.Name]
			if !ok {
				value = standIn
			}
			switch {
			case axis >= 0:
				piecesOf(whole, axis, 1, input.DType.Size()).put(to.data, row, value.data)
			case row == 0:
				copy(to.data, value.data)
			case !bytes.Equal(to.data, value.data):
				return nil, disagree(
					fmt.Sprintf("one value of '%s', which has no batch axis, in all streams of a call", input.Name),
					fmt.Sprintf("another in stream %d than in stream 0", row))
			}
		}
		joined[input.Name] = to
	}
	return joined, nil
}

// batch returns the stream of so many rows.
func (p *Pool) batch(known sizes) (*Stream, error) {
	bound := maps.Clone(known)
	delete(bound, "time")
	for place, batch := range p.batches {
		if maps.Equal(batch.known, bound) {
			p.batches = append(slices.Delete(p.batches, place, place+1), batch)
			return batch, nil
		}
	}
	options := []StreamOption{WithBatch(known["batch"])}
	for _, name := range p.session.contract.FreeDimensions() {
		options = append(options, WithDim(name, known[name]))
	}
	made, err := p.session.Stream(options...)
	if err != nil {
		return nil, err
	}
	if len(p.batches) == keptBatches {
		p.batches[0].Close()
		p.batches = p.batches[1:]
	}
	p.batches = append(p.batches, made)
	return made, nil
}

// runRows steps a batch whose rows are the states of these streams, and hands each what came of its row.
func (s *Stream) runRows(streams []*Stream, inputs Inputs) ([]Outputs, error) {
	contract := s.session.contract
	rows := make([]pieces, len(contract.States))
	for index, state := range contract.States {
		rows[index] = piecesOf(s.starts[index].Shape, axisIndex(state.Shape, "batch"), 1, state.DType.Size())
		for row, stream := range streams {
			rows[index].put(s.sides[s.side][index].bytes, row, stream.sides[stream.side][index].bytes)
		}
	}
	given, err := s.runCall(inputs, false)
	if err != nil {
		return nil, err
	}
	made := make([]Outputs, len(streams))
	for row, stream := range streams {
		made[row] = Outputs{}
		for _, spec := range contract.Outputs {
			value, axis := given[spec.Name], axisIndex(contract.callerShape(spec, false, false), "batch")
			shape := slices.Clone(value.Shape)
			shape[axis] = 1
			own := Zeros(spec.DType, shape)
			piecesOf(value.Shape, axis, 1, spec.DType.Size()).take(value.data, row, own.data)
			made[row][spec.Name] = own
		}
		for index := range contract.States {
			rows[index].take(s.sides[s.side][index].bytes, row, stream.sides[1-stream.side][index].bytes)
		}
		stream.side = 1 - stream.side
		stream.position++
	}
	return made, nil
}

func disagree(expected, found string) error {
	return newError("streams-disagree", expected, found, "run them in separate calls")
}
