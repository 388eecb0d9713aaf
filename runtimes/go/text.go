package rnnx

import (
	"fmt"
	"iter"
	"strings"
)

// Encode returns the ids of the characters of a text; what it is stands in the message ("prompt"). The error is
// character-outside-vocabulary, naming the first such character and its position.
func (v *Vocabulary) Encode(text, what string) ([]int64, error) {
	ids := []int64{}
	for _, character := range text {
		id, ok := v.ids[character]
		if !ok {
			return nil, newError("character-outside-vocabulary",
				fmt.Sprintf("a %s of the vocabulary's %d characters", what, len(v.Symbols)),
				fmt.Sprintf("'%c' (U+%04X) at character %d (from 0)", character, character, len(ids)),
				"leave it out or replace it; 'rnnx inspect MODEL --json' lists the vocabulary")
		}
		ids = append(ids, int64(id))
	}
	return ids, nil
}

// Decode returns the text that ids stand for. The error is id-outside-vocabulary, naming the first such id.
func (v *Vocabulary) Decode(ids []int64) (string, error) {
	var text strings.Builder
	for position, id := range ids {
		if id < 0 || id >= int64(len(v.Symbols)) {
			return "", newError("id-outside-vocabulary", fmt.Sprintf("ids in 0..%d", len(v.Symbols)-1),
				fmt.Sprintf("%d at position %d (from 0)", id, position),
				"use the ids of the vocabulary this model was trained with")
		}
		text.WriteRune(v.Symbols[id])
	}
	return text.String(), nil
}

// TextStream is text being made: a stream of batch 1, a sampler, and the scores that the next symbol is drawn from.
type TextStream struct {
	stream        *Stream
	sampler       *Sampler
	vocabulary    *Vocabulary
	given, taken  Spec
	token, scores Tensor // scores of the latest step; nothing is drawn from them yet
	hasScores     bool
}

// Text starts a text; the same seed gives the same text in every language. The errors are not-symbols for a
// model without vocabulary, and temperature-invalid.
func (s *Session) Text(seed uint64, temperature float64) (*TextStream, error) {
	vocabulary := s.contract.Vocabulary
	if vocabulary == nil {
		return nil, newError("not-symbols", "a model with a vocabulary, to make text with",
			"one without, which takes arrays", "give it arrays: 'rnnx run MODEL --input x.npy --output y.npy'")
	}
	sampler, err := NewSampler(seed, temperature)
	if err != nil {
		return nil, err
	}
	t := &TextStream{sampler: sampler, vocabulary: vocabulary}
	for _, input := range s.contract.Inputs {
		if input.Name == vocabulary.Input {
			t.given = input.Spec
		}
	}
	for _, spec := range s.contract.Outputs {
		if spec.Name == vocabulary.Output {
			t.taken = spec
		}
	}
	t.token = Zeros(t.given.DType, t.given.StepShape(func(string) int { return 1 }))
	t.scores = Zeros(t.taken.DType, []int{len(vocabulary.Symbols)})
	t.stream, err = s.Stream()
	return t, err
}

// Read runs a text, the prompt, through the model; its symbols draw no number. The error is
// character-outside-vocabulary; nothing was run then.
func (t *TextStream) Read(text string) error {
	ids, err := t.vocabulary.Encode(text, "prompt")
	if err != nil || len(ids) == 0 {
		return err
	}
	contract := t.stream.session.contract
	known := sizes{"batch": 1, "time": len(ids)}
	shape, _ := resolve(contract.callerShape(t.given, false, true), known)
	chunk := Zeros(t.given.DType, shape)
	for index, id := range ids {
		chunk.setNumber(index, float64(id))
	}
	outputs, err := t.stream.Run(Inputs{t.given.Name: chunk})
	if err != nil {
		return err
	}
	scores := outputs[t.taken.Name]
	axes := contract.callerShape(t.taken, false, true)
	if axis := axisIndex(axes, "time"); axis >= 0 {
		steps := piecesOf(scores.Shape, axis, axes[axis].Factor, scores.DType.Size())
		steps.take(scores.data, len(ids)-1, t.scores.data)
	} else {
		copy(t.scores.data, scores.data)
	}
	t.hasScores = true
	return nil
}

// WriteOne draws the next symbol and runs it as a step. The errors are prompt-empty if nothing was read yet,
// scores-invalid, and those of Step; nothing changes then.
func (t *TextStream) WriteOne() (rune, error) {
	if !t.hasScores {
		return 0, newError("prompt-empty", "a prompt of at least one character", "none",
			"give the characters the text should begin with")
	}
	before := t.sampler.State
	drawn, err := t.sampler.Sample(t.scores)
	if err != nil {
		return 0, err
	}
	t.token.setNumber(0, float64(drawn))
	// Run before it is given out, so that the scores always belong to the latest symbol given.
	outputs, err := t.stream.Step(Inputs{t.given.Name: t.token})
	if err != nil {
		t.sampler.State = before
		return 0, err
	}
	copy(t.scores.data, outputs[t.taken.Name].data)
	return t.vocabulary.Symbols[drawn], nil
}

// Write yields so many symbols that continue what was read and written so far; it ends with the first error.
func (t *TextStream) Write(length int) iter.Seq2[rune, error] {
	return func(yield func(rune, error) bool) {
		for range length {
			symbol, err := t.WriteOne()
			if !yield(symbol, err) || err != nil {
				return
			}
		}
	}
}

// Snapshot returns all that is needed to continue exactly here, sampling included.
func (t *TextStream) Snapshot() ([]byte, error) {
	if !t.hasScores {
		return t.stream.Snapshot()
	}
	row := Tensor{t.scores.DType, []int{1, len(t.vocabulary.Symbols)}, t.scores.data}
	return t.stream.snapshot(&sampling{[]uint64{t.sampler.State}, []float64{t.sampler.Temperature}, row})
}

// Restore continues where a snapshot was made, with its generator and temperature if it has them. Errors are as
// for Stream.Restore.
func (t *TextStream) Restore(data []byte) error {
	sampling, err := t.stream.restore(data)
	if err != nil {
		return err
	}
	if t.hasScores = sampling != nil; t.hasScores {
		t.sampler.State, t.sampler.Temperature = sampling.generator[0], sampling.temperature[0]
		copy(t.scores.data, sampling.scores.data)
	}
	return nil
}

// Close lets go of the stream.
func (t *TextStream) Close() error { return t.stream.Close() }
