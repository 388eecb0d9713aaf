package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rnnx"
)

// TestMain goes where the models are that all languages are tested with; messages name paths relative to it.
func TestMain(m *testing.M) {
	if err := os.Chdir("../../../../parity_tests/golden"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func run(t *testing.T, words ...string) (any, error) {
	t.Helper()
	parsed, err := parse(append(words, "--json"))
	if err != nil {
		return nil, err
	}
	return replay(parsed)
}

func read[T any](t *testing.T, path string) (value T) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &value)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestEveryGoldenAgreesInEveryChunking(t *testing.T) {
	models, _ := filepath.Glob("*.onnx")
	if len(models) < 15 {
		t.Fatalf("only %d goldens", len(models))
	}
	for _, model := range models {
		trace := strings.TrimSuffix(model, ".onnx") + ".trace.safetensors"
		for _, chunks := range []string{"1", "0", "3", "3,1,0"} {
			result, err := run(t, model, trace, "--chunks", chunks)
			if found, ok := result.(rnnx.Verdict); err != nil || !ok || !found.Agrees || found.Steps == 0 {
				t.Errorf("%s in chunks of %s: %v %v", model, chunks, result, err)
			}
		}
	}
}

func TestEveryErrorHasItsCodeAndText(t *testing.T) {
	type fault struct {
		Name      string
		Arguments []string
		Code      string
		Text      *string
		Except    map[string]string
	}
	faults := read[[]fault](t, "errors.json")
	if len(faults) < 30 {
		t.Fatalf("only %d faults", len(faults))
	}
	for _, fault := range faults {
		if fault.Except["go"] != "" {
			continue
		}
		_, err := run(t, fault.Arguments...)
		var problem *rnnx.Error
		if !errors.As(err, &problem) || problem.Code != fault.Code {
			t.Errorf("%s: %v, not %s", fault.Name, err, fault.Code)
		} else if fault.Text != nil && problem.Error() != *fault.Text {
			t.Errorf("%s:\n%s, not\n%s", fault.Name, problem, *fault.Text)
		}
	}
}

func TestTextsAndDrawsAreTheSameAsEverywhere(t *testing.T) {
	type sample struct {
		Model, Prompt, Text       string
		Length, Temperature, Seed json.Number
		Weights                   []json.Number
		Count                     json.Number
		Draws                     []int
	}
	for _, text := range read[[]sample](t, "texts.json") {
		result, err := run(t, text.Model, "--text", text.Prompt, "--length", text.Length.String(),
			"--temperature", text.Temperature.String(), "--seed", text.Seed.String())
		if err != nil || result.(map[string]any)["text"] != text.Text {
			t.Errorf("%v %v, not %q", result, err, text.Text)
		}
	}
	for _, draw := range read[[]sample](t, "draws.json") {
		weights := []string{}
		for _, weight := range draw.Weights {
			weights = append(weights, weight.String())
		}
		result, err := run(t, "--draw", strings.Join(weights, ","), "--seed", draw.Seed.String(), "--count", draw.Count.String())
		if err != nil || !slices.Equal(result.(map[string]any)["draws"].([]int), draw.Draws) {
			t.Errorf("%v %v, not %v", result, err, draw.Draws)
		}
	}
}

// spoil changes one bit of a tensor of a trace.
func spoil(t *testing.T, tensor string, at int) string {
	data, err := os.ReadFile("gru.trace.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	size := int(binary.LittleEndian.Uint64(data))
	var header map[string]struct {
		Offsets []int `json:"data_offsets"`
	}
	// The entry of the metadata has no offsets, which is no error here.
	if err := json.Unmarshal(data[8:8+size], &header); err != nil {
		t.Fatal(err)
	}
	data[8+size+header[tensor].Offsets[0]+at] ^= 0x40
	path := filepath.Join(t.TempDir(), "spoiled.safetensors")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestANumberThatIsOffIsFoundWhereItIs(t *testing.T) {
	entry := 2*2*6 + 4 // of output.y, [step, 2, 6]: step 2, row 0, entry 4
	result, err := run(t, "gru.onnx", spoil(t, "output.y", entry*4+3), "--chunks", "3")
	if found := result.(rnnx.Verdict); err != nil || found.Agrees || found.Failure.Tensor != "output.y" ||
		found.Failure.Step != 2 || !slices.Equal(found.Failure.Index, []int{0, 4}) {
		t.Errorf("%v %v", result, err)
	}
	result, err = run(t, "gru.onnx", spoil(t, "state.state.h", 3))
	if found := result.(rnnx.Verdict); err != nil || found.Agrees || found.Failure.Tensor != "state.state.h" || found.Failure.Step != -1 {
		t.Errorf("%v %v", result, err)
	}
}
