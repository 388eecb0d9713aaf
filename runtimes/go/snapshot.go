package rnnx

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// sampling is where sampling stopped, one entry for each row.
type sampling struct {
	generator   []uint64
	temperature []float64
	scores      Tensor // [batch, symbols], in the dtype of the vocabulary's output
}

// snapshot is all that is needed to continue a stream elsewhere, in one layout for all languages.
type snapshot struct {
	position uint64
	states   []Tensor // in the order of the contract
	sampling *sampling
}

func encodeSnapshot(contract *Contract, s snapshot) []byte {
	tensors := []pair[Tensor]{}
	for index, state := range contract.States {
		tensors = append(tensors, pair[Tensor]{"state." + state.Name, s.states[index]})
	}
	if s.sampling != nil {
		batch := []int{len(s.sampling.generator)}
		tensors = append(tensors,
			pair[Tensor]{"sampling.generator", NewTensor(batch, s.sampling.generator)},
			pair[Tensor]{"sampling.temperature", NewTensor(batch, s.sampling.temperature)},
			pair[Tensor]{"sampling.scores", s.sampling.scores})
	}
	return encodeTensors(tensors, []pair[string]{
		{"format", "rnnx-snapshot"}, {"version", "1"}, {"model", contract.ID},
		{"position", strconv.FormatUint(s.position, 10)},
	})
}

// decodeSnapshot reads a snapshot and checks it against the model and the sizes of the stream it is for.
func decodeSnapshot(data []byte, contract *Contract, known sizes) (snapshot, error) {
	file, err := ReadTensors(data, "a snapshot")
	if err != nil {
		return snapshot{}, err
	}
	if err := file.check("snapshot", contract.ID); err != nil {
		return snapshot{}, err
	}
	position, err := strconv.ParseUint(file.Metadata["position"], 10, 64)
	if err != nil {
		return snapshot{}, invalidSnapshot("a position in decimal", "'"+file.Metadata["position"]+"'")
	}
	found := snapshot{position: position}
	for _, state := range contract.States {
		tensor, ok := file.Tensors["state."+state.Name]
		if !ok {
			return snapshot{}, invalidSnapshot("a tensor 'state."+state.Name+"'", file.names())
		}
		fitted, ok := fit(state.Shape, tensor.Shape, known)
		if !ok || tensor.DType != state.DType {
			wanted := make([]string, len(state.Shape))
			for index, axis := range state.Shape {
				wanted[index] = axis.String()
				if size, ok := known[axis.Name]; ok {
					wanted[index] = strconv.Itoa(size)
				}
			}
			return snapshot{}, invalidSnapshot(fmt.Sprintf("state '%s' as %s", state.Name, describe(state.DType.String(), wanted)),
				describe(tensor.DType.String(), tensor.Shape))
		}
		// One engine keeps NaN, another takes it for a number.
		if place, isOdd := nanIn(tensor); isOdd && !slices.ContainsFunc(state.Initial.numbers, math.IsNaN) {
			return snapshot{}, newError("snapshot-invalid", "a snapshot with state '"+state.Name+"' without NaN", place,
				"take an earlier snapshot: when this one was written, the network had overflowed already")
		}
		known = fitted
		found.states = append(found.states, tensor)
	}
	found.sampling, err = samplingOf(file, contract, known["batch"])
	return found, err
}

// samplingOf returns the three sampling tensors, which are there together or not at all.
func samplingOf(file *TensorFile, contract *Contract, batch int) (*sampling, error) {
	if _, ok := file.Tensors["sampling.generator"]; !ok || contract.Vocabulary == nil {
		return nil, nil
	}
	dtype := Float32Type
	for _, spec := range contract.Outputs {
		if spec.Name == contract.Vocabulary.Output {
			dtype = spec.DType
		}
	}
	shapes := [][]int{{batch}, {batch}, {batch, len(contract.Vocabulary.Symbols)}}
	types := []DType{Uint64Type, Float64Type, dtype}
	for index, name := range []string{"sampling.generator", "sampling.temperature", "sampling.scores"} {
		tensor, ok := file.Tensors[name]
		if !ok || tensor.DType != types[index] || !slices.Equal(tensor.Shape, shapes[index]) {
			seen := "none"
			if ok {
				seen = describe(tensor.DType.String(), tensor.Shape)
			}
			return nil, invalidSnapshot(fmt.Sprintf("a tensor '%s' of shape [%s]", name, list(shapes[index])), seen)
		}
	}
	found := &sampling{scores: file.Tensors["sampling.scores"]}
	found.generator, _ = Values[uint64](file.Tensors["sampling.generator"])
	found.temperature, _ = Values[float64](file.Tensors["sampling.temperature"])
	return found, nil
}

func invalidSnapshot(expected, found string) error {
	return newError("snapshot-invalid", "a snapshot with "+expected, found,
		"open the stream with the batch and dims that the snapshot was made with")
}
