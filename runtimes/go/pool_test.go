package rnnx

import (
	"slices"
	"testing"
)

func openPool(t *testing.T, session *Session) *Pool {
	t.Helper()
	pool, err := session.Pool()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func TestARefusedPoolStepMovesNoStream(t *testing.T) {
	session, other := openGolden(t, "gru.onnx"), openGolden(t, "gru.onnx")
	pool, first, second := openPool(t, session), openStream(t, session), openStream(t, session)
	x := Inputs{"x": frame([]int{1, 4}, 0)}
	step := func(streams []*Stream, inputs ...Inputs) error {
		_, err := pool.Step(streams, inputs)
		return err
	}
	expect(t, "streams-disagree", step([]*Stream{first, first}, x, x))
	expect(t, "streams-disagree", step([]*Stream{first, openStream(t, other)}, x, x))
	expect(t, "streams-disagree", step([]*Stream{first, openStream(t, session, WithBatch(2))}, x, x))
	expect(t, "streams-disagree", step([]*Stream{first, second}, x))
	expect(t, "unknown-input", step([]*Stream{first, second}, x, Inputs{"z": x["x"]}))
	if first.Position() != 0 {
		t.Error("a stream has moved")
	}
	if err := step([]*Stream{first, second}, x, x); err != nil || first.Position() != 1 {
		t.Error(err)
	}
	second.Close()
	expect(t, "stream-closed", step([]*Stream{first, second}, x, x))
	if _, err := first.Step(x); err != nil {
		t.Error("the first stream was not let go:", err)
	}
	pool.Close()
	expect(t, "stream-closed", step([]*Stream{first}, x))
}

func TestMoreSizesThanAPoolKeeps(t *testing.T) {
	session := openGolden(t, "gru.onnx")
	pool := openPool(t, session)
	var streams, alone []*Stream
	var inputs []Inputs
	for place := range keptBatches + 8 {
		streams, alone = append(streams, openStream(t, session)), append(alone, openStream(t, session))
		inputs = append(inputs, Inputs{"x": frame([]int{1, 4}, place)})
	}
	for count := len(streams); count > 0; count-- {
		got, err := pool.Step(streams[:count], inputs[:count])
		if err != nil {
			t.Fatal(err)
		}
		for place := range count {
			wanted, err := alone[place].Step(inputs[place])
			if err != nil {
				t.Fatal(err)
			}
			one, _ := Values[float32](got[place]["y"])
			other, _ := Values[float32](wanted["y"])
			if !slices.EqualFunc(one, other, func(a, b float32) bool { return a-b < 1e-5 && b-a < 1e-5 }) {
				t.Fatalf("stream %d of %d: %v, alone %v", place, count, one, other)
			}
		}
	}
}
