package rnnx

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDrawsAreThoseOfTheContractDocument(t *testing.T) {
	sampler, _ := NewSampler(7, 1)
	for _, number := range []uint64{0x63cbe1e459320dd7, 0x044c3cd7f43c661c, 0xe6984080bab12a02} {
		if got := sampler.NextUint64(); got != number {
			t.Errorf("%x, not %x", got, number)
		}
	}
	sampler.State = 7
	if u := sampler.Uniform(); u != 0.3898297483912715 {
		t.Error(u)
	}
	sampler.State = 7
	for _, wanted := range []int{2, 0, 3, 2, 2, 1, 2, 2} {
		if got, err := sampler.SampleWeights([]float64{1, 2, 3, 4}); got != wanted || err != nil {
			t.Error(got, wanted, err)
		}
	}
	// The seed whose first number is 0: u = 0 must not draw a weight of zero.
	sampler.State = 0x61C8864680B583EB
	if got, err := sampler.SampleWeights([]float64{0, 1}); got != 1 || err != nil {
		t.Error(got, err)
	}
}

func TestWeightsAndScoresThatMeanNothingAreRefused(t *testing.T) {
	sampler, _ := NewSampler(7, 0)
	nan, inf := math.NaN(), math.Inf(1)
	for _, weights := range [][]float64{{}, {0, 0}, {1, -1}, {nan}, {math.MaxFloat64, math.MaxFloat64}, {1e-310}} {
		_, err := sampler.SampleWeights(weights)
		expect(t, "weights-invalid", err)
	}
	for _, scores := range [][]float64{{}, {nan, 0}, {inf, 0}, {-inf, -inf}} {
		_, err := sampler.Sample(NewTensor([]int{len(scores)}, scores))
		expect(t, "scores-invalid", err)
	}
	if best, err := sampler.Sample(NewTensor([]int{4}, []float32{1, 3, 3, float32(-inf)})); best != 1 || err != nil {
		t.Error(best, err)
	}
	if sampler.State != 7 {
		t.Error("a number was taken")
	}
	_, err := NewSampler(7, -1)
	expect(t, "temperature-invalid", err)
}

func TestATextGoesOnFromItsSnapshot(t *testing.T) {
	session := openGolden(t, "characters.onnx")
	vocabulary := session.Contract().Vocabulary
	ids, err := vocabulary.Encode("é😀", "text")
	if back, _ := vocabulary.Decode(ids); back != "é😀" || err != nil {
		t.Error(back, err)
	}
	_, err = vocabulary.Decode([]int64{37})
	expect(t, "id-outside-vocabulary", err)
	text, _ := session.Text(3, 0.8)
	defer text.Close()
	_, err = text.WriteOne()
	expect(t, "prompt-empty", err)
	text.Read("abc")
	take := func(text *TextStream) (symbols []rune) {
		for symbol, err := range text.Write(20) {
			if err != nil {
				t.Fatal(err)
			}
			symbols = append(symbols, symbol)
		}
		return symbols
	}
	take(text)
	saved, err := text.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	other, _ := session.Text(99, 0)
	defer other.Close()
	if err := other.Restore(saved); err != nil {
		t.Fatal(err)
	}
	if one, two := take(text), take(other); len(one) != 20 || !slices.Equal(one, two) {
		t.Error(string(one), string(two))
	}
}

func TestHalfFloatsRoundToNearest(t *testing.T) {
	for bits := range 1 << 16 {
		half := Float16(bits)
		if number := half.Float64(); !math.IsNaN(number) && NewFloat16(number) != half {
			t.Fatalf("%x is %v, which is %x", bits, number, NewFloat16(number))
		}
	}
	for number, wanted := range map[float64]Float16{
		1 + 0x1p-11: 0x3c00, 1 + 0x3p-11: 0x3c02, 65519: 0x7bff, 65520: 0x7c00, 0x1p-25: 0, 0x1.8p-25: 1, -2: 0xc000,
		2047.9999: 0x6800,
	} {
		if got := NewFloat16(number); got != wanted {
			t.Errorf("%v is %x, not %x", number, got, wanted)
		}
	}
	stream := openStream(t, openGolden(t, "half.onnx"))
	half := NewFloat16(.5)
	outputs, err := stream.Step(Inputs{"x": NewTensor([]int{1, 3}, []Float16{half, half, half})})
	if err != nil || outputs["y"].Number(0) == 0 {
		t.Error(outputs, err)
	}
	_, err = Values[float32](outputs["y"])
	expect(t, "wrong-dtype", err)
	_, err = stream.Step(Inputs{"x": NewTensor([]int{1, 3}, []Float16{half, NewFloat16(math.Inf(1)), half})})
	expect(t, "non-finite", err)
}

func TestAContractThatBreaksARuleIsRefused(t *testing.T) {
	contract := func(inputs, rest string) error {
		_, err := ParseContract([]byte(`{"format": "rnnx", "version": 1, "inputs": [` + inputs + `], "outputs": [], "states": []` + rest + `}`))
		return err
	}
	x := `{"name": "x", "dtype": "float32", "shape": ["batch", "time"]}`
	if err := contract(x, `, "news": [1]`); err != nil {
		t.Error("unknown fields are ignored:", err)
	}
	for text, code := range map[string]string{
		`[]`: "contract-invalid", `{`: "contract-invalid", `{"format": "rnnx"}`: "contract-invalid",
		`{"format": "rnnx", "version": 2}`:                    "contract-newer",
		`{"format": "rnnx", "version": 1, "requires": ["a"]}`: "contract-requires",
		`{"format": "rnnx", "version": 0}`:                    "contract-invalid",
	} {
		_, err := ParseContract([]byte(text))
		expect(t, code, err)
	}
	for _, inputs := range []string{
		`{"name": "x", "dtype": "float8", "shape": []}`,
		`{"name": "x", "dtype": "float32", "shape": [0]}`,
		`{"name": "x", "dtype": "float32", "shape": [1.5]}`,
		`{"name": "x", "dtype": "float32", "shape": ["2*batch"]}`,
		`{"name": "x", "dtype": "float32", "shape": ["batch", "batch"]}`,
		`{"name": "x", "dtype": "float32", "shape": [2], "default": [1, 2, 3]}`,
		`{"name": "x", "dtype": "float32", "shape": ["batch"], "default": [1, 2]}`,
		`{"name": "x", "dtype": "float32", "shape": [2, 2], "default": [[1, 2], [3]]}`,
		`{"name": "x", "dtype": "int64", "shape": [3], "role": "length"}`,
		`{"name": "x", "dtype": "int64"}`,
		`{"name": "", "dtype": "int64", "shape": []}`,
		x + "," + x,
	} {
		expect(t, "contract-invalid", contract(inputs, ""))
	}
	expect(t, "contract-invalid", contract(x, `, "vocabulary": {"input": "x", "output": "y", "symbols": []}`))
}

func TestADamagedModelIsRefusedAndNeverCrashes(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(golden, "gru.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size < len(data); size += 97 {
		if _, err := OpenBytes(data[:size]); err == nil {
			t.Errorf("%d of %d bytes opened", size, len(data))
		}
	}
	_, err = Open(filepath.Join(golden, "none.onnx"))
	expect(t, "file-missing", err)
	_, err = Open(golden)
	expect(t, "cannot-read", err)
}
