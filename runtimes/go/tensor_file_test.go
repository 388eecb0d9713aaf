package rnnx

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTensorFilesAreReadWithCare(t *testing.T) {
	read := func(header string, body ...byte) (*TensorFile, error) {
		data := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
		return ReadTensors(append(append(data, header...), body...), "a file")
	}
	header := `{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}`
	file, err := read(header, 0, 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	if values, _ := Values[bool](file.Tensors["a"]); !slices.Equal(values, []bool{false, true, true}) {
		t.Error(values)
	}
	_, err = read(header, 0, 1)
	expect(t, "not-safetensors", err)
	_, err = read(header, 0, 1, 1, 1)
	expect(t, "not-safetensors", err)
	for _, wrong := range []string{
		`[]`, `{`, `{"__metadata__":{"a":1}}`,
		`{"a":{"dtype":"F8","shape":[3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[3,0]}}`,
		`{"a":{"dtype":"I64","shape":[4611686018427387904,4],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"BOOL","shape":[-3],"data_offsets":[0,3]}}`,
	} {
		_, err := read(wrong, 0, 1, 1)
		expect(t, "not-safetensors", err)
	}
	data, err := os.ReadFile(filepath.Join(golden, "gru.trace.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size < len(data); size += 61 {
		_, err := ReadTensors(data[:size], "a file")
		expect(t, "not-safetensors", err)
	}
}

func TestTextsInHeadersHaveNoNeedlessEscape(t *testing.T) {
	for text, wanted := range map[string]string{
		"<é😀>": `"<é😀>"`, "a\"b\\c\n\x01": `"a\"b\\c\n\u0001"`, "\u2028": "\"\u2028\"", `\u2028`: `"\\u2028"`,
	} {
		if got := quoted(text); got != wanted {
			t.Errorf("%s, not %s", got, wanted)
		}
	}
}
