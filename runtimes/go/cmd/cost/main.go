// Command cost says what a step costs over the binding called by hand: go run ./cmd/cost MODEL [STEPS].
//
// For a model with one float32 input. Blocks of steps take turns, and the best block of each counts. It prints
// microseconds a step as JSON.
package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"rnnx"
)

const block = 1000

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: cost MODEL [STEPS]"))
	}
	steps := 20_000
	if len(os.Args) > 2 {
		steps = must(strconv.Atoi(os.Args[2]))
	}
	session := must(rnnx.Open(os.Args[1]))
	defer session.Close()
	stream := must(session.Stream())
	defer stream.Close()
	spec := session.Contract().Inputs[0].Spec
	shape := spec.StepShape(func(string) int { return 1 })
	frame := make([]float32, rnnx.Zeros(rnnx.Float32Type, shape).Len())
	inputs := rnnx.Inputs{spec.Name: rnnx.NewTensor(shape, frame)}
	hand := openByHand(os.Args[1], session.Contract())
	oursMicroseconds, handMicroseconds := math.Inf(1), math.Inf(1)
	for turn := range max(steps/block, 2) {
		frame[0] = float32(turn) / 100
		start := time.Now()
		for range block {
			must(stream.Step(inputs))
		}
		oursMicroseconds = min(oursMicroseconds, time.Since(start).Seconds()*1e6/block)
		start = time.Now()
		for range block {
			hand.step(frame)
		}
		handMicroseconds = min(handMicroseconds, time.Since(start).Seconds()*1e6/block)
	}
	fmt.Printf("{\"step_us\": %.3f, \"by_hand_us\": %.3f}\n", oursMicroseconds, handMicroseconds)
}

// byHand is the binding as one would write it: everything bound once, two bindings that take turns.
type byHand struct {
	session  *ort.DynamicAdvancedSession
	input    []float32
	bindings [2]*ort.IoBinding
	side     int
}

func openByHand(path string, contract *rnnx.Contract) *byHand {
	settings := must(ort.NewSessionOptions())
	check(settings.SetIntraOpNumThreads(1))
	check(settings.SetInterOpNumThreads(1))
	check(settings.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"))
	h := &byHand{session: must(ort.NewDynamicAdvancedSession(path, nil, nil, settings))}
	make := func(spec rnnx.Spec) *ort.Tensor[float32] {
		shape := ort.Shape{}
		for _, size := range spec.ChunkShape(1, func(string) int { return 1 }) {
			shape = append(shape, int64(size))
		}
		return must(ort.NewEmptyTensor[float32](shape))
	}
	input := make(contract.Inputs[0].Spec)
	h.input = input.GetData()
	outputs, sides := []*ort.Tensor[float32]{}, [2][]*ort.Tensor[float32]{}
	for _, spec := range contract.Outputs {
		outputs = append(outputs, make(spec))
	}
	for side := range sides {
		for _, state := range contract.States {
			sides[side] = append(sides[side], make(state.Spec))
		}
	}
	for side := range h.bindings {
		binding := must(h.session.CreateIoBinding())
		check(binding.BindInput(contract.Inputs[0].Name, input))
		for index, spec := range contract.Outputs {
			check(binding.BindOutput(spec.Name, outputs[index]))
		}
		for index, state := range contract.States {
			check(binding.BindInput(state.Input, sides[side][index]))
			check(binding.BindOutput(state.Output, sides[1-side][index]))
		}
		h.bindings[side] = binding
	}
	return h
}

func (h *byHand) step(frame []float32) {
	copy(h.input, frame)
	check(h.session.RunWithBinding(h.bindings[h.side]))
	h.side = 1 - h.side
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}
