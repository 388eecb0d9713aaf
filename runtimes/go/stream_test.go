package rnnx

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const golden = "../../parity_tests/golden"

func openGolden(t *testing.T, name string) *Session {
	t.Helper()
	session, err := Open(filepath.Join(golden, name))
	if err != nil {
		t.Fatalf("RNNX_ONNXRUNTIME must name ONNX Runtime's library: %v", err)
	}
	t.Cleanup(session.Close)
	return session
}

func openStream(t *testing.T, session *Session, choices ...StreamOption) *Stream {
	t.Helper()
	stream, err := session.Stream(choices...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	return stream
}

func expect(t *testing.T, code string, err error) {
	t.Helper()
	var problem *Error
	if !errors.As(err, &problem) || problem.Code != code {
		t.Errorf("%v, not %s", err, code)
	}
}

// frame returns values that differ from step to step.
func frame(shape []int, step int) Tensor {
	values := make([]float32, count(shape))
	for index := range values {
		values[index] = float32((step*31+index*7)%19)/9.5 - 1
	}
	return NewTensor(shape, values)
}

// stepOf returns a copy of the output y of one step.
func stepOf(t *testing.T, stream *Stream, step int) []float32 {
	t.Helper()
	outputs, err := stream.Step(Inputs{"x": frame([]int{stream.Batch(), 4}, step)})
	if err != nil {
		t.Fatal(err)
	}
	values, err := Values[float32](outputs["y"])
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(values)
}

func TestAModelOpensFromItsBytesAndStreamsOutliveTheirSession(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(golden, "gru.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	session, err := OpenBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := session.Stream()
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	session.Close()
	if first := stepOf(t, stream, 0); slices.Equal(first, stepOf(t, stream, 0)) {
		t.Error("the state did not go on")
	}
	if stream.Position() != 2 {
		t.Error(stream.Position())
	}
	_, err = session.Stream()
	expect(t, "session-closed", err)
	if err := errors.Join(stream.Close(), stream.Close()); err != nil {
		t.Error(err)
	}
	_, err = stream.Step(nil)
	expect(t, "stream-closed", err)
	_, err = stream.Snapshot()
	expect(t, "stream-closed", err)
}

// ONNX Runtime would read them where the program runs.
func TestAModelThatIsBytesHasNoWeightsBesideIt(t *testing.T) {
	for _, name := range []string{"weights-missing", "weights-above", "weights-elsewhere"} {
		data, err := os.ReadFile(filepath.Join(golden, "faults", name+".onnx"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = OpenBytes(data)
		expect(t, "external-data-missing", err)
	}
}

func TestResetGoesBackToTheStartAndRowsAlone(t *testing.T) {
	session := openGolden(t, "gru.onnx")
	stream := openStream(t, session, WithBatch(3))
	first := stepOf(t, stream, 0)
	if err := stream.ResetRows(1, 1); err != nil {
		t.Fatal(err)
	}
	state, err := stream.State("state.h") // [1, 3, 6]
	values, _ := Values[float32](state)
	if err != nil || !slices.Equal(values[6:12], make([]float32, 6)) || slices.Equal(values[:6], make([]float32, 6)) {
		t.Error(values, err)
	}
	if stream.Position() != 1 {
		t.Error(stream.Position())
	}
	if err := stream.Reset(); err != nil || stream.Position() != 0 {
		t.Error(err, stream.Position())
	}
	if again := stepOf(t, stream, 0); !slices.Equal(again, first) {
		t.Error(again, first)
	}
	expect(t, "row-range", stream.ResetRows(3))
	expect(t, "row-range", stream.ResetRows(-1))
}

func TestAnInitialStateIsTheStartAndWhatResetGoesBackTo(t *testing.T) {
	session := openGolden(t, "gru.onnx")
	start := []float32{.5, .5, .5, .5, .5, .5}
	stream := openStream(t, session, WithInitial("state.h", NewTensor([]int{1, 1, 6}, start)))
	for range 2 {
		state, _ := stream.State("state.h")
		if values, _ := Values[float32](state); !slices.Equal(values, start) {
			t.Error(values)
		}
		stepOf(t, stream, 0)
		if err := stream.Reset(); err != nil {
			t.Error(err)
		}
	}
	refuse := func(code, model string, choices ...StreamOption) {
		t.Helper()
		_, err := openGolden(t, model).Stream(choices...)
		expect(t, code, err)
	}
	nan := float32(math.NaN())
	refuse("unknown-state", "gru.onnx", WithInitial("h", NewTensor([]int{1, 1, 6}, start)))
	refuse("wrong-shape", "gru.onnx", WithInitial("state.h", NewTensor([]int{6}, start)))
	refuse("wrong-shape", "gru.onnx", WithInitial("state.h", NewTensor([]int{1, 1, 6}, start[:5])))
	refuse("wrong-dtype", "gru.onnx", WithInitial("state.h", NewTensor([]int{1, 1, 6}, make([]float64, 6))))
	refuse("non-finite", "gru.onnx", WithInitial("state.h", NewTensor([]int{1, 1, 6}, []float32{0, nan, 0, 0, 0, 0})))
	refuse("empty-batch", "gru.onnx", WithBatch(0))
	refuse("unknown-dimension", "gru.onnx", WithDim("memory", 3))
	refuse("no-batch", "no_batch.onnx", WithBatch(2))
	refuse("missing-dimension", "free_dimension.onnx")
	refuse("wrong-dimension", "free_dimension.onnx", WithDim("memory", 0))
	refuse("out-of-memory", "free_dimension.onnx", WithBatch(3), WithDim("memory", math.MaxInt/8))
}

func TestStatesAreReadAndWrittenAndMayBeInfinite(t *testing.T) {
	stream := openStream(t, openGolden(t, "minus_infinity.onnx"))
	state, err := stream.State("best")
	if err != nil || !math.IsInf(state.Number(5), -1) {
		t.Error(state, err)
	}
	high := float32(math.Inf(1))
	if err := stream.SetState("best", NewTensor([]int{1, 6}, []float32{high, 0, 0, 0, 0, 0})); err != nil {
		t.Error(err)
	}
	if state, _ := stream.State("best"); !math.IsInf(state.Number(0), 1) || state.Number(1) != 0 {
		t.Error(state)
	}
	nan := float32(math.NaN())
	expect(t, "non-finite", stream.SetState("best", NewTensor([]int{1, 6}, []float32{nan, 0, 0, 0, 0, 0})))
	expect(t, "unknown-state", stream.SetState("worst", NewTensor([]int{1, 6}, make([]float32, 6))))
	_, err = stream.State("worst")
	expect(t, "unknown-state", err)
}

func TestAnErrorLeavesTheStatesAsTheyWere(t *testing.T) {
	stream := openStream(t, openGolden(t, "gru.onnx"))
	stepOf(t, stream, 0)
	before, _ := stream.Snapshot()
	refuse := func(code string, run func(Inputs) (Outputs, error), inputs Inputs) {
		t.Helper()
		_, err := run(inputs)
		expect(t, code, err)
	}
	bad := []float32{0, 0, float32(math.NaN()), 0}
	refuse("non-finite", stream.Step, Inputs{"x": NewTensor([]int{1, 4}, bad)})
	refuse("wrong-shape", stream.Step, Inputs{"x": NewTensor([]int{1, 4}, bad[:3])})
	refuse("wrong-dtype", stream.Step, Inputs{"x": NewTensor([]int{1, 4}, make([]int32, 4))})
	refuse("missing-input", stream.Step, nil)
	refuse("unknown-input", stream.Step, Inputs{"z": NewTensor([]int{1, 4}, bad)})
	refuse("empty-time", stream.Run, Inputs{"x": NewTensor([]int{1, 0, 4}, []float32{})})
	refuse("wrong-shape", stream.Run, Inputs{"x": NewTensor([]int{1, 4}, bad)})
	if after, _ := stream.Snapshot(); !slices.Equal(before, after) {
		t.Error("the states changed")
	}
}

func TestAChunkOfAStepModelHasTimeBehindTheBatch(t *testing.T) {
	session := openGolden(t, "step_only.onnx") // x float32[batch, 6] -> y float32[batch, 3]
	chunk := frame([]int{2, 3, 6}, 1)
	outputs, err := openStream(t, session, WithBatch(2)).Run(Inputs{"x": chunk})
	if err != nil {
		t.Fatal(err)
	}
	given, _ := Values[float32](chunk)
	joined, _ := Values[float32](outputs["y"]) // [2, 3, 3]
	stream := openStream(t, session, WithBatch(2))
	for step := range 3 {
		x := append(slices.Clone(given[step*6:][:6]), given[18+step*6:][:6]...)
		single, err := stream.Step(Inputs{"x": NewTensor([]int{2, 6}, x)})
		if err != nil {
			t.Fatal(err)
		}
		y, _ := Values[float32](single["y"]) // [2, 3]
		if !slices.Equal(y[:3], joined[step*3:][:3]) || !slices.Equal(y[3:], joined[9+step*3:][:3]) {
			t.Error(step, y, joined)
		}
	}
}

func TestARestoredStreamGoesOnBitForBit(t *testing.T) {
	session := openGolden(t, "lstm.onnx")
	stream := openStream(t, session)
	for step := range 5 {
		stepOf(t, stream, step)
	}
	saved, err := stream.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	other := openStream(t, session)
	if err := other.Restore(saved); err != nil || other.Position() != 5 {
		t.Fatal(err, other.Position())
	}
	for step := 5; step < 9; step++ {
		if one, two := stepOf(t, stream, step), stepOf(t, other, step); !slices.Equal(one, two) {
			t.Error(step, one, two)
		}
	}
	expect(t, "snapshot-of-another-model", openStream(t, openGolden(t, "gru.onnx")).Restore(saved))
	expect(t, "not-safetensors", other.Restore(saved[:len(saved)-1]))
	expect(t, "snapshot-invalid", openStream(t, session, WithBatch(2)).Restore(saved))
	if other.Position() != 9 {
		t.Error(other.Position())
	}
}

func TestDefaultsAndLengthsMayBeLeftOut(t *testing.T) {
	session := openGolden(t, "default_and_length.onnx") // x float32[batch, time, 3], gain = 1, lengths
	total := func(more Inputs) ([]float32, error) {
		stream := openStream(t, session, WithBatch(2))
		more["x"] = NewTensor([]int{2, 2, 3}, []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
		if _, err := stream.Run(more); err != nil {
			return nil, err
		}
		state, err := stream.State("total")
		values, _ := Values[float32](state)
		return values, err
	}
	gain := func(gain float32) Tensor { return NewTensor([]int{2}, []float32{gain, gain}) }
	lengths := func(one, two int64) Tensor { return NewTensor([]int{2}, []int64{one, two}) }
	plain, err := total(Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	if same, err := total(Inputs{"gain": gain(1), "lengths": lengths(2, 2)}); err != nil || !slices.Equal(plain, same) {
		t.Error(plain, same, err)
	}
	if other, _ := total(Inputs{"gain": gain(2)}); slices.Equal(plain, other) {
		t.Error("the gain counts for nothing")
	}
	if kept, _ := total(Inputs{"lengths": lengths(0, 2)}); !slices.Equal(kept[:3], []float32{0, 0, 0}) {
		t.Error("a row of length 0 does not keep its state", kept)
	}
	_, err = total(Inputs{"lengths": lengths(0, 3)})
	expect(t, "length-range", err)
	_, err = total(Inputs{"lengths": lengths(-1, 2)})
	expect(t, "length-range", err)
}

func TestAWholeOnlyModelRunsOnceAndNeverSteps(t *testing.T) {
	stream := openStream(t, openGolden(t, "whole_only.onnx"))
	inputs := Inputs{"x": NewTensor([]int{1, 3}, []float32{1, 2, 3})}
	_, err := stream.Step(Inputs{"x": NewTensor([]int{1}, []float32{1})})
	expect(t, "whole-only", err)
	if _, err := stream.Run(inputs); err != nil {
		t.Error(err)
	}
	_, err = stream.Run(inputs)
	expect(t, "whole-only", err)
	stream.Reset()
	if _, err := stream.Run(inputs); err != nil {
		t.Error(err)
	}
}

func TestGoroutinesShareASessionAndOneStreamIsRefusedToTwo(t *testing.T) {
	session := openGolden(t, "gru.onnx")
	run := func(offset int) []float32 {
		stream := openStream(t, session)
		all := []float32{}
		for step := range 200 {
			all = append(all, stepOf(t, stream, offset+step)...)
		}
		return all
	}
	alone, together := [4][]float32{}, [4][]float32{}
	var group sync.WaitGroup
	for offset := range 4 {
		alone[offset] = run(offset)
		group.Add(1)
		go func() {
			defer group.Done()
			together[offset] = run(offset)
		}()
	}
	group.Wait()
	for offset := range 4 {
		if !slices.Equal(alone[offset], together[offset]) {
			t.Error(offset)
		}
	}
	// Two on one stream: every call succeeds or is refused as busy, and each success is a step.
	stream := openStream(t, session)
	done := make([]int, 2)
	for worker := range done {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 2000 {
				if _, err := stream.Step(Inputs{"x": frame([]int{1, 4}, 0)}); err == nil {
					done[worker]++
				} else {
					expect(t, "stream-busy", err)
				}
			}
		}()
	}
	group.Wait()
	if stream.Position() != uint64(done[0]+done[1]) {
		t.Error(done, stream.Position())
	}
}

func TestAStepAllocatesNothingAndMemoryStaysFlat(t *testing.T) {
	stream := openStream(t, openGolden(t, "gru.onnx"))
	values := make([]float32, 4)
	inputs := Inputs{"x": NewTensor([]int{1, 4}, values)}
	step := func() {
		values[0] = -values[0] + .1
		if _, err := stream.Step(inputs); err != nil {
			t.Fatal(err)
		}
	}
	if allocations := testing.AllocsPerRun(1000, step); allocations != 0 {
		t.Errorf("%v allocations a step", allocations)
	}
	for range 10_000 {
		step()
	}
	before := residentKilobytes(t)
	for range 100_000 {
		step()
	}
	if growth := residentKilobytes(t) - before; growth > 1024 {
		t.Errorf("%d kB more after 100,000 steps", growth)
	}
}

func TestStreamsThatAreClosedLeaveNothingBehind(t *testing.T) {
	session := openGolden(t, "gru.onnx")
	open := func(count int) {
		for range count {
			stream, err := session.Stream(WithBatch(64))
			if err != nil {
				t.Fatal(err)
			}
			stepOf(t, stream, 0)
			if err := stream.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(3000)
	before := residentKilobytes(t)
	open(10_000) // with 9 kB of buffers, 7 tensors and 2 bindings each
	if growth := residentKilobytes(t) - before; growth > 4<<10 {
		t.Errorf("%d kB more after 10,000 streams", growth)
	}
}

func residentKilobytes(t *testing.T) int {
	debug.FreeOSMemory() // so that what Go keeps for later does not count
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("not run: the memory of this process (no /proc)")
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	size, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return size
}
