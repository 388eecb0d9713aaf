package rnnx

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

const largestHeader = 100_000_000 // the format's own limit

// TensorFile is what a safetensors file holds.
type TensorFile struct {
	Tensors  map[string]Tensor
	Names    []string // of the tensors, in the order of their data
	Metadata map[string]string
}

// ReadTensors reads safetensors bytes; what they should be stands in the message ("a trace"). The error is
// not-safetensors for anything that is not whole and well formed.
func ReadTensors(data []byte, what string) (*TensorFile, error) {
	file, err := decodeTensors(data)
	if err != nil {
		return nil, newError("not-safetensors", what+", in safetensors format",
			fmt.Sprintf("%d bytes that are not: %s", len(data), err),
			"check the path; if the file was copied, copy it again whole")
	}
	return file, nil
}

func decodeTensors(data []byte) (*TensorFile, error) {
	if len(data) < 8 {
		return nil, fmt.Errorf("too short for a header")
	}
	size := binary.LittleEndian.Uint64(data)
	if size > min(uint64(len(data)-8), largestHeader) {
		return nil, fmt.Errorf("cut short in the header")
	}
	var header map[string]json.RawMessage
	if json.Unmarshal(data[8:8+size], &header) != nil {
		return nil, fmt.Errorf("a malformed header")
	}
	body := data[8+size:]
	file := &TensorFile{Tensors: map[string]Tensor{}, Metadata: map[string]string{}}
	if text, ok := header["__metadata__"]; ok && json.Unmarshal(text, &file.Metadata) != nil {
		return nil, fmt.Errorf("metadata that is not text")
	}
	delete(header, "__metadata__")
	used, total, starts := uint64(0), uint64(0), map[string]uint64{}
	for _, name := range keys(header) {
		var entry struct {
			DType   string   `json:"dtype"`
			Shape   []uint64 `json:"shape"`
			Offsets []uint64 `json:"data_offsets"`
		}
		if json.Unmarshal(header[name], &entry) != nil || len(entry.Offsets) != 2 || entry.Shape == nil {
			return nil, fmt.Errorf("a malformed header")
		}
		tensor, err := decodeTensor(name, entry.DType, entry.Shape, entry.Offsets, body)
		if err != nil {
			return nil, err
		}
		// Every byte belongs to one tensor, so that a file costs what it is long.
		if total += entry.Offsets[1] - entry.Offsets[0]; total > uint64(len(body)) {
			return nil, fmt.Errorf("tensors that share bytes")
		}
		file.Tensors[name], starts[name] = tensor, entry.Offsets[0]
		file.Names = append(file.Names, name)
		used = max(used, entry.Offsets[1])
	}
	if left := uint64(len(body)) - used; left > 0 {
		return nil, fmt.Errorf("%d bytes behind the last tensor", left)
	}
	if total < uint64(len(body)) {
		return nil, fmt.Errorf("bytes between tensors")
	}
	sort.SliceStable(file.Names, func(i, j int) bool { return starts[file.Names[i]] < starts[file.Names[j]] })
	return file, nil
}

func decodeTensor(name, code string, shape, offsets []uint64, body []byte) (Tensor, error) {
	for dtype := range dtypes {
		if dtypes[dtype].code != code {
			continue
		}
		size, numbers := uint64(dtypes[dtype].size), make([]int, len(shape))
		for axis, extent := range shape {
			numbers[axis] = int(extent)
			if extent != 0 && size > uint64(1<<62)/extent {
				return Tensor{}, fmt.Errorf("tensor '%s' of another size than its shape", name)
			}
			size *= extent
		}
		if offsets[1] < offsets[0] || offsets[1]-offsets[0] != size {
			return Tensor{}, fmt.Errorf("tensor '%s' of another size than its shape", name)
		}
		if offsets[1] > uint64(len(body)) {
			return Tensor{}, fmt.Errorf("cut short in tensor '%s'", name)
		}
		tensor := Zeros(DType(dtype), numbers)
		copy(tensor.data, body[offsets[0]:offsets[1]])
		tensor.swapBytes()
		if tensor.DType == BoolType {
			for index, value := range tensor.data {
				tensor.data[index] = min(value, 1) // as Go and the engine want it
			}
		}
		return tensor, nil
	}
	return Tensor{}, fmt.Errorf("a malformed header")
}

// swapBytes turns entries around on machines that are not little-endian; it works both ways.
func (t Tensor) swapBytes() {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return
	}
	size := t.DType.Size()
	for start := 0; start < len(t.data); start += size {
		for low, high := start, start+size-1; low < high; low, high = low+1, high-1 {
			t.data[low], t.data[high] = t.data[high], t.data[low]
		}
	}
}

// pair of a name and a value, for what is written in order.
type pair[T any] struct {
	name  string
	value T
}

// encodeTensors returns safetensors bytes: tensors in the order given, largest entries first so that all are aligned.
func encodeTensors(tensors []pair[Tensor], metadata []pair[string]) []byte {
	sort.SliceStable(tensors, func(i, j int) bool { return tensors[i].value.DType.Size() > tensors[j].value.DType.Size() })
	texts := []string{}
	for _, entry := range metadata {
		texts = append(texts, quoted(entry.name)+":"+quoted(entry.value))
	}
	entries := []string{`"__metadata__":{` + strings.Join(texts, ",") + "}"}
	end := 0
	for _, tensor := range tensors {
		start := end
		end += len(tensor.value.data)
		shape := make([]string, len(tensor.value.Shape))
		for axis, size := range tensor.value.Shape {
			shape[axis] = strconv.Itoa(size)
		}
		entries = append(entries, fmt.Sprintf(`%s:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}`, quoted(tensor.name),
			dtypes[tensor.value.DType].code, strings.Join(shape, ","), start, end))
	}
	header := "{" + strings.Join(entries, ",") + "}"
	header += strings.Repeat(" ", -len(header)&7)
	data := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	data = append(data, header...)
	for _, tensor := range tensors {
		copied := tensor.value.Clone()
		copied.swapBytes()
		data = append(data, copied.data...)
	}
	return data
}

// quoted returns a text as JSON, with no escape that is not needed.
func quoted(text string) string {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.Encode(text) // writes to memory, and text is always JSON
	needless := strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029")
	return needless.Replace(strings.TrimSuffix(buffer.String(), "\n"))
}

// names of all tensors, for a message.
func (f *TensorFile) names() string {
	if len(f.Names) == 0 {
		return "no tensors"
	}
	return list(f.Names)
}

// check that the file is of a kind ("trace") in version 1, and belongs to the model at hand.
func (f *TensorFile) check(name, modelID string) error {
	version, err := strconv.ParseUint(f.Metadata["version"], 10, 64)
	if f.Metadata["format"] != "rnnx-"+name || err != nil {
		return newError("not-a-"+name, fmt.Sprintf("a %s (metadata format 'rnnx-%s' and a version)", name, name),
			fmt.Sprintf("safetensors of format '%s'", f.Metadata["format"]), fmt.Sprintf("name a %s that rnnx wrote", name))
	}
	if version > 1 {
		return newError(name+"-newer", fmt.Sprintf("a %s of version 1 at most", name), fmt.Sprintf("version %d", version),
			"install a newer rnnx")
	}
	if id, ok := f.Metadata["model"]; id != modelID {
		if !ok {
			id = "no model"
		}
		return newError(name+"-of-another-model", fmt.Sprintf("a %s of the model %s", name, modelID), "one of "+id,
			"use the model file that it was made with")
	}
	return nil
}
