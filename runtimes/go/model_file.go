package rnnx

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
)

// Reading an ONNX file as far as a contract goes: metadata, and the signature of its graph. Field numbers are
// those of onnx.proto; the encoding is protobuf's.

// graphValue is a graph input or output as the file declares it; a dimension of "" is left open.
type graphValue struct {
	dtype string
	shape []string
}

type modelFile struct {
	inputs, outputs map[string]graphValue
	initializers    map[string]bool
	contract        string
	hasContract     bool
}

// readModel returns the contract inside a model, checked against its graph, and whether values of tensors lie in
// other files, which are as they should be. The path is "" for a model that is bytes alone. The errors are not-onnx,
// external-data-missing, external-data-refused, no-contract, contract-invalid, contract-newer, contract-requires and
// contract-graph.
func readModel(data []byte, path, label string) (contract *Contract, isExternal bool, err error) {
	file, ok := parseModel(data)
	tensors, found, refusal := externalTensors(data)
	if !ok || !found {
		return nil, false, newError("not-onnx", "an ONNX model in "+label,
			fmt.Sprintf("%d bytes that are none, or are cut short", len(data)),
			"name a file that 'rnnx export' wrote, or export it again")
	}
	if refusal == nil {
		refusal = checkExternal(tensors, path)
	}
	if refusal != nil {
		return nil, false, refusal
	}
	if !file.hasContract {
		return nil, false, newError("no-contract", "an rnnx contract in "+label, "an ONNX model without one",
			"export it with 'rnnx export'")
	}
	if contract, err = ParseContract([]byte(file.contract)); err != nil {
		return nil, false, err
	}
	return contract, len(tensors) > 0, file.agrees(contract, label)
}

// agrees holds a contract against the graph.
func (f *modelFile) agrees(contract *Contract, label string) error {
	given, taken := map[string]Spec{}, map[string]Spec{}
	for _, input := range contract.Inputs {
		given[input.Name] = input.Spec
	}
	for _, spec := range contract.Outputs {
		taken[spec.Name] = spec
	}
	for _, state := range contract.States {
		given[state.Input], taken[state.Output] = state.Spec, state.Spec
	}
	if err := agree(label, "input", given, f.inputs); err != nil {
		return err
	}
	return agree(label, "output", taken, f.outputs)
}

func agree(label, kind string, named map[string]Spec, graph map[string]graphValue) error {
	fail := func(expected, ours, theirs string) error {
		return newError("contract-graph", fmt.Sprintf("contract and graph of %s to agree on %s", label, expected),
			fmt.Sprintf("%s in the contract, %s in the graph", ours, theirs), "export the model again with 'rnnx export'")
	}
	ours, theirs := keys(named), keys(graph)
	if !slices.Equal(ours, theirs) {
		orNone := func(names []string) string {
			if len(names) == 0 {
				return "none"
			}
			return list(names)
		}
		return fail("the "+kind+"s", orNone(ours), orNone(theirs))
	}
	for _, name := range ours {
		spec, value := named[name], graph[name]
		fits := spec.DType.String() == value.dtype && len(spec.Shape) == len(value.shape)
		for index := 0; fits && index < len(value.shape); index++ {
			fits = value.shape[index] == "" || value.shape[index] == spec.Shape[index].String()
		}
		if !fits {
			return fail(fmt.Sprintf("%s '%s'", kind, name), describe(spec.DType.String(), spec.Shape),
				describe(value.dtype, value.shape))
		}
	}
	return nil
}

func parseModel(data []byte) (modelFile, bool) {
	file := modelFile{map[string]graphValue{}, map[string]graphValue{}, map[string]bool{}, "", false}
	var graph []byte
	hasGraph, hasVersion, hasOperators := false, false, false
	ok := eachField(data, func(number, value uint64, bytes []byte) bool {
		switch number {
		case 1:
			hasVersion = value != 0
		case 7:
			graph, hasGraph = bytes, true
		case 8:
			hasOperators = true
		case 14:
			return file.metadata(bytes)
		}
		return true
	})
	ok = ok && hasGraph && hasVersion && hasOperators && eachField(graph, file.graphField)
	for name := range file.initializers {
		delete(file.inputs, name)
	}
	return file, ok
}

func (f *modelFile) metadata(entry []byte) bool {
	key, value, ok := textEntry(entry)
	if key == "rnnx.contract" {
		f.contract, f.hasContract = value, true
	}
	return ok
}

func (f *modelFile) graphField(number, _ uint64, bytes []byte) bool {
	switch number {
	case 5:
		return eachField(bytes, func(number, _ uint64, bytes []byte) bool {
			if number == 8 {
				f.initializers[string(bytes)] = true
			}
			return true
		})
	case 11:
		return valueInfo(bytes, f.inputs)
	case 12:
		return valueInfo(bytes, f.outputs)
	}
	return true
}

func valueInfo(message []byte, values map[string]graphValue) bool {
	name, value := "", graphValue{}
	ok := eachField(message, func(number, _ uint64, bytes []byte) bool {
		switch number {
		case 1:
			name = string(bytes)
		case 2:
			return eachField(bytes, func(number, _ uint64, bytes []byte) bool {
				return number != 1 || eachField(bytes, value.tensorField)
			})
		}
		return true
	})
	values[name] = value
	return ok
}

func (v *graphValue) tensorField(number, value uint64, bytes []byte) bool {
	switch number {
	case 1:
		v.dtype = "another type"
		for _, dtype := range dtypes {
			if dtype.onnx == value {
				v.dtype = dtype.name
			}
		}
	case 2:
		return eachField(bytes, func(number, _ uint64, bytes []byte) bool {
			if number != 1 {
				return true
			}
			text := ""
			ok := eachField(bytes, func(number, value uint64, bytes []byte) bool {
				switch number {
				case 1:
					text = strconv.FormatUint(value, 10)
				case 2:
					text = string(bytes)
				}
				return true
			})
			v.shape = append(v.shape, text)
			return ok
		})
	}
	return true
}

// eachField calls visit with number, and varint or bytes, of each field of a protobuf message; bytes are nil for a
// varint. False where the message is malformed or visit says so.
func eachField(message []byte, visit func(number, value uint64, bytes []byte) bool) bool {
	for len(message) > 0 {
		tag, size := binary.Uvarint(message)
		if size <= 0 || tag>>3 == 0 {
			return false
		}
		message = message[size:]
		var value, length uint64
		switch tag & 7 {
		case 0:
			if value, size = binary.Uvarint(message); size <= 0 {
				return false
			}
			message = message[size:]
		case 1:
			length = 8
		case 2:
			if length, size = binary.Uvarint(message); size <= 0 {
				return false
			}
			message = message[size:]
		case 5:
			length = 4
		default:
			return false
		}
		if length > uint64(len(message)) {
			return false
		}
		bytes := message[:length]
		if tag&7 == 0 {
			bytes = nil
		}
		if !visit(tag>>3, value, bytes) {
			return false
		}
		message = message[length:]
	}
	return true
}
