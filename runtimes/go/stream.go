package rnnx

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
)

// Inputs are the tensors of a call, by name.
type Inputs map[string]Tensor

// Outputs are the results of a call, by name. They lie in buffers of the stream and hold until its next call.
type Outputs map[string]Tensor

// Stream is one batched sequence of a session.
//
// A step reads one side of the states and writes the other; the two change roles at its very end, so that after
// an error the states are what they were before the call. A stream is used by one goroutine at a time: a call
// while another is running is refused with stream-busy, and one after Close with stream-closed.
type Stream struct {
	session  *Session
	batch    int
	known    sizes // of batch and the free dimensions that were bound
	starts   []Tensor
	calls    [2]*call // the latest of Step and of Run
	sides    [2][]*buffer
	side     int
	position uint64
	gate     atomic.Int32
	waiting  waiting
}

const (
	isOpen = iota
	isBusy
	isShut
)

type streamOptions struct {
	batch   int
	dims    sizes
	initial map[string]Tensor
}

// StreamOption says what a stream is opened with.
type StreamOption func(*streamOptions)

// WithBatch sets the number of sequences that run side by side, one to a row.
func WithBatch(batch int) StreamOption { return func(o *streamOptions) { o.batch = batch } }

// WithDim sets the size of a free dimension; required for those that a state has.
func WithDim(name string, size int) StreamOption {
	return func(o *streamOptions) { o.dims[name] = size }
}

// WithInitial sets another start than the contract's for a state; Reset goes back to it.
func WithInitial(state string, value Tensor) StreamOption {
	return func(o *streamOptions) { o.initial[state] = value }
}

// Stream opens a stream with states at their start. The error codes are unknown-dimension, wrong-dimension,
// empty-batch, no-batch, missing-dimension, unknown-state, wrong-dtype, wrong-shape, non-finite, out-of-memory
// and session-closed.
func (s *Session) Stream(choices ...StreamOption) (*Stream, error) {
	chosen := streamOptions{1, sizes{}, map[string]Tensor{}}
	for _, choose := range choices {
		choose(&chosen)
	}
	known, err := openSizes(s.contract, chosen.batch, chosen.dims)
	if err != nil {
		return nil, err
	}
	starts, err := startsOf(s.contract, known, chosen.initial)
	if err != nil {
		return nil, err
	}
	if err := s.join(); err != nil {
		return nil, err
	}
	stream := &Stream{session: s, batch: chosen.batch, known: known, starts: starts}
	for side := range stream.sides {
		for _, start := range starts {
			made, err := newBuffer(start.DType, start.Shape)
			if err != nil {
				stream.Close()
				return nil, err
			}
			stream.sides[side] = append(stream.sides[side], made)
		}
	}
	stream.replace(starts, 0)
	return stream, nil
}

// Session returns what it runs.
func (s *Stream) Session() *Session { return s.session }

// Batch returns the number of sequences side by side.
func (s *Stream) Batch() int { return s.batch }

// Position returns the number of steps since the stream was opened or reset as a whole.
func (s *Stream) Position() uint64 { return s.position }

// Step runs one time step. Inputs are in the shape of one step, which has no time axis; an N*time axis has N
// entries. A second step of the same sizes allocates nothing. The error codes are unknown-input, missing-input,
// wrong-dtype, wrong-shape, empty-batch, missing-dimension, non-finite, symbol-range, length-range, whole-only,
// entries-waiting, stream-busy, stream-closed and engine-failed; the states are unchanged then.
func (s *Stream) Step(inputs Inputs) (Outputs, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.gate.Store(isOpen)
	if err := s.waiting.requireNone(s.session.contract); err != nil {
		return nil, err
	}
	return s.runCall(inputs, false)
}

// Run runs a chunk of steps; chunks of any lengths give together what one long one gives. Inputs are in the
// shape of a chunk, with the time axis; those without one hold for the whole call. Errors are as for Step, and
// empty-time.
func (s *Stream) Run(inputs Inputs) (Outputs, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.gate.Store(isOpen)
	if err := s.waiting.requireNone(s.session.contract); err != nil {
		return nil, err
	}
	return s.run(inputs)
}

func (s *Stream) run(inputs Inputs) (Outputs, error) {
	if !s.session.contract.HasTime() {
		return s.runSteps(inputs)
	}
	if s.position > 0 && s.session.contract.isWhole {
		return nil, s.wholeOnly("a second call")
	}
	return s.runCall(inputs, true)
}

// Reset puts all states back to their start, and the position to 0, and drops what waits for a whole step.
func (s *Stream) Reset() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.gate.Store(isOpen)
	s.replace(s.starts, 0)
	s.waiting = nil
	return nil
}

// ResetRows puts the states of some rows of the batch back to their start; the position stays. The errors are
// row-range for a row that does not exist, shared-state where rows share a state, and entries-waiting.
func (s *Stream) ResetRows(rows ...int) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.gate.Store(isOpen)
	if err := s.waiting.requireNone(s.session.contract); err != nil {
		return err
	}
	chosen := map[int]bool{}
	for _, row := range rows {
		if row < 0 || row >= s.batch {
			return newError("row-range", fmt.Sprintf("rows in 0..%d", s.batch-1), strconv.Itoa(row),
				"name rows of this stream's batch")
		}
		chosen[row] = true
	}
	values := s.readAll()
	for index, state := range s.session.contract.States {
		axis := axisIndex(state.Shape, "batch")
		switch {
		case axis >= 0:
			rows := piecesOf(values[index].Shape, axis, 1, state.DType.Size())
			entries := make([]byte, rows.outer*rows.size)
			for row := range chosen {
				rows.take(s.starts[index].data, row, entries)
				rows.put(values[index].data, row, entries)
			}
		case len(chosen) == s.batch:
			values[index] = s.starts[index]
		case len(chosen) > 0:
			return newError("shared-state", "states with a batch axis, so that a row has its own",
				"state '"+state.Name+"' shared by all rows", "reset the whole stream")
		}
	}
	s.replace(values, s.position)
	return nil
}

// State returns a copy of a state. The error is unknown-state.
func (s *Stream) State(name string) (Tensor, error) {
	if err := s.enter(); err != nil {
		return Tensor{}, err
	}
	defer s.gate.Store(isOpen)
	index, err := stateIndex(s.session.contract, name)
	if err != nil {
		return Tensor{}, err
	}
	return s.read(index), nil
}

// SetState overwrites a state. The errors are unknown-state, wrong-dtype, wrong-shape, and non-finite for NaN;
// infinities are allowed.
func (s *Stream) SetState(name string, value Tensor) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.gate.Store(isOpen)
	index, err := checkState(s.session.contract, name, value, s.known)
	if err != nil {
		return err
	}
	copy(s.sides[s.side][index].bytes, value.data)
	return nil
}

// Snapshot returns all that is needed to continue elsewhere, as safetensors bytes: the same in every language. The
// error is entries-waiting, since a snapshot has no room for them.
func (s *Stream) Snapshot() ([]byte, error) { return s.snapshot(nil) }

func (s *Stream) snapshot(sampling *sampling) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.gate.Store(isOpen)
	if err := s.waiting.requireNone(s.session.contract); err != nil {
		return nil, err
	}
	return encodeSnapshot(s.session.contract, snapshot{s.position, s.readAll(), sampling}), nil
}

// Restore continues where a snapshot was made; the outputs that follow are the same bit for bit. The errors are
// not-safetensors, not-a-snapshot, snapshot-newer, snapshot-of-another-model and snapshot-invalid; the states
// are unchanged then. What waits for a whole step is dropped.
func (s *Stream) Restore(data []byte) error {
	_, err := s.restore(data)
	return err
}

func (s *Stream) restore(data []byte) (*sampling, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.gate.Store(isOpen)
	found, err := decodeSnapshot(data, s.session.contract, s.known)
	if err != nil {
		return nil, err
	}
	s.replace(found.states, found.position)
	s.waiting = nil
	return found.sampling, nil
}

// Close lets go of the buffers; Outputs are gone with them. Closing twice is fine; the error is stream-busy.
func (s *Stream) Close() error {
	if err := s.enter(); err != nil {
		if s.gate.Load() == isShut {
			return nil
		}
		return err
	}
	for _, call := range s.calls {
		if call != nil {
			call.bound.close()
		}
	}
	for _, side := range s.sides {
		for _, buffer := range side {
			buffer.close()
		}
	}
	s.gate.Store(isShut)
	s.session.leave()
	return nil
}

// enter keeps every other call out until the gate is open again.
func (s *Stream) enter() error {
	if s.gate.CompareAndSwap(isOpen, isBusy) {
		return nil
	}
	if s.gate.Load() == isShut {
		return newError("stream-closed", "a stream that is open", "one that was closed",
			"open another stream of the session")
	}
	return newError("stream-busy", "one thread at a time on a stream", "a call while another is running",
		"open a stream for each thread; they share the session")
}

func (s *Stream) runCall(inputs Inputs, whole bool) (Outputs, error) {
	slot := &s.calls[0]
	if whole {
		slot = &s.calls[1]
	}
	if *slot == nil || !(*slot).fill(inputs) {
		if err := s.prepare(slot, inputs, whole); err != nil {
			return nil, err
		}
	}
	if err := s.advance(*slot); err != nil {
		return nil, err
	}
	return (*slot).outputs, nil
}

// prepare puts a call that is filled with these inputs into its slot: the long way, where the latest does not fit.
func (s *Stream) prepare(slot **call, inputs Inputs, whole bool) error {
	contract := s.session.contract
	if !whole && contract.isWhole {
		return s.wholeOnly("a call of step")
	}
	known, err := matchInputs(contract, inputs, s.known, whole)
	if err != nil {
		return err
	}
	if err := checkValues(contract, inputs, known["time"]); err != nil {
		return err
	}
	if err := s.fit(slot, known, whole); err != nil {
		return err
	}
	if !(*slot).fill(inputs) {
		panic("rnnx: a call refused inputs that were checked")
	}
	return nil
}

// fit leaves the latest call where it has these sizes, and else makes another in its place.
func (s *Stream) fit(slot **call, known sizes, whole bool) error {
	if *slot != nil && maps.Equal((*slot).known, known) {
		return nil
	}
	made, err := newCall(s.session, &s.sides, known, whole)
	if err != nil {
		return err
	}
	if *slot != nil {
		(*slot).bound.close()
	}
	*slot = made
	return nil
}

func (s *Stream) advance(c *call) error {
	if err := c.run(s.session.contract, s.side); err != nil {
		return err
	}
	s.side = 1 - s.side
	s.position += uint64(c.known["time"])
	return nil
}

// runSteps runs a chunk of a step model: step by step, back to the start of the chunk if one fails.
func (s *Stream) runSteps(inputs Inputs) (Outputs, error) {
	contract := s.session.contract
	known, err := matchInputs(contract, inputs, s.known, true)
	if err != nil {
		return nil, err
	}
	time := known["time"]
	if err := checkValues(contract, inputs, time); err != nil {
		return nil, err
	}
	if err := s.fit(&s.calls[0], known.with("time", 1), false); err != nil {
		return nil, err
	}
	before, saved := s.position, s.readAll()
	outputs := Outputs{}
	for step := range time {
		s.calls[0].fillStep(contract, inputs, step, time)
		if err := s.advance(s.calls[0]); err != nil {
			s.replace(saved, before)
			return nil, err
		}
		if err := s.join(outputs, step, time); err != nil {
			s.replace(saved, before)
			return nil, err
		}
	}
	return outputs, nil
}

// join puts the outputs of one step where they belong in those of the chunk, which the first step makes.
func (s *Stream) join(outputs Outputs, step, time int) error {
	for _, spec := range s.session.contract.Outputs {
		row, axis := s.calls[0].outputs[spec.Name], axisIndex(withTime(spec.Shape), "time")
		shape := slices.Insert(slices.Clone(row.Shape), axis, time)
		if step == 0 {
			outputs[spec.Name] = Zeros(spec.DType, shape)
		}
		if !slices.Equal(outputs[spec.Name].Shape, shape) {
			return newError("engine-failed", "output '"+spec.Name+"' of one size in all steps of a chunk",
				fmt.Sprintf("[%s] behind [%s]", list(shape), list(outputs[spec.Name].Shape)), "step it one by one")
		}
		piecesOf(shape, axis, 1, spec.DType.Size()).put(outputs[spec.Name].data, step, row.data)
	}
	return nil
}

func (s *Stream) read(index int) Tensor {
	return Tensor{s.starts[index].DType, s.starts[index].Shape, s.sides[s.side][index].bytes}.Clone()
}

func (s *Stream) readAll() []Tensor {
	values := make([]Tensor, len(s.starts))
	for index := range values {
		values[index] = s.read(index)
	}
	return values
}

// replace makes states current, all at once: they are written to the other side, which then changes roles.
func (s *Stream) replace(states []Tensor, position uint64) {
	other := 1 - s.side
	for index, value := range states {
		copy(s.sides[other][index].bytes, value.data)
	}
	s.side, s.position = other, position
}

func (s *Stream) wholeOnly(found string) error {
	return newError("whole-only",
		"the whole sequence in one call of run, because of "+s.session.contract.WholeOnly, found,
		"give the whole sequence to run, and reset before the next one")
}
