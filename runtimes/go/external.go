package rnnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Tensors of a model whose values lie in other files: found wherever a tensor may stand, and read from the model's
// own folder alone. Field numbers are those of onnx.proto.

const (
	deepest = 100 // messages in messages, as protobuf reads them
	shared  = 4   // how many tensors may share values, on average
)

// messageKind is a kind of message that leads to tensors.
type messageKind int

const (
	ofModel messageKind = iota
	ofTraining
	ofFunction
	ofGraph
	ofNode
	ofAttribute
	ofSparse
	ofTensor
)

// inside says which messages hold which, by the number of the field.
var inside = [...]map[uint64]messageKind{
	ofModel:     {7: ofGraph, 20: ofTraining, 25: ofFunction},
	ofTraining:  {1: ofGraph, 2: ofGraph},
	ofFunction:  {7: ofNode, 11: ofAttribute},
	ofGraph:     {1: ofNode, 5: ofTensor, 15: ofSparse},
	ofNode:      {5: ofAttribute},
	ofAttribute: {5: ofTensor, 6: ofGraph, 10: ofTensor, 11: ofGraph, 22: ofSparse, 23: ofSparse},
	ofSparse:    {1: ofTensor, 2: ofTensor},
	ofTensor:    {},
}

// typeBits has the bits of an entry by TensorProto.DataType; 0 for types without a size.
var typeBits = [...]uint64{0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8}

type externalTensor struct {
	location      string
	offset, bytes uint64
}

// externalTensors returns them in the order in which they stand; false where the bytes are no model. The error is
// external-data-refused for what no such tensor may say.
func externalTensors(model []byte) (found []externalTensor, ok bool, err error) {
	var walk func(message []byte, kind messageKind, left int) bool
	walk = func(message []byte, kind messageKind, left int) bool {
		if kind == ofTensor {
			tensor, isExternal, ok, refusal := readTensor(message)
			if isExternal && ok && refusal == nil {
				found = append(found, tensor)
			}
			err = refusal
			return ok && err == nil && left >= 0
		}
		return left >= 0 && eachField(message, func(number, _ uint64, bytes []byte) bool {
			inner, leads := inside[kind][number]
			return !leads || bytes == nil || walk(bytes, inner, left-1)
		})
	}
	ok = walk(model, ofModel, deepest)
	return found, ok || err != nil, err
}

func readTensor(message []byte) (tensor externalTensor, isExternal, ok bool, err error) {
	entries, width, said := uint64(1), uint64(0), map[string]string{}
	ok = eachField(message, func(number, value uint64, bytes []byte) bool {
		switch {
		case number == 1 && bytes == nil:
			entries = times(entries, value)
		case number == 1:
			for len(bytes) > 0 {
				size, length := binary.Uvarint(bytes)
				if length <= 0 {
					return false
				}
				entries, bytes = times(entries, size), bytes[length:]
			}
		case number == 2 && bytes == nil:
			width = 0
			if value < uint64(len(typeBits)) {
				width = typeBits[value]
			}
		case number == 13:
			isExternal = true
			key, text, ok := textEntry(bytes)
			said[key] = text
			return ok
		case number == 14 && value == 1:
			isExternal = true
		}
		return true
	})
	if !ok || !isExternal {
		return tensor, false, ok, nil
	}
	if width == 0 {
		return tensor, true, true, externalRefused("an external tensor of a dtype with a size", "one of another")
	}
	tensor = externalTensor{location: said["location"], bytes: math.MaxUint64}
	if entries <= math.MaxUint64/256 {
		tensor.bytes = (entries*width + 7) / 8
	}
	length := tensor.bytes
	for name, size := range map[string]*uint64{"offset": &tensor.offset, "length": &length} {
		text, stated := said[name]
		if !stated {
			continue
		}
		if *size, err = strconv.ParseUint(text, 10, 64); err != nil || len(text) > 19 {
			return tensor, true, true, externalRefused(
				fmt.Sprintf("a whole number of bytes as %s of an external tensor", name), fmt.Sprintf("'%.40s'", text))
		}
	}
	if length != tensor.bytes {
		return tensor, true, true, externalRefused(
			fmt.Sprintf("an external tensor of %d bytes, as its shape has", tensor.bytes), fmt.Sprintf("length %d", length))
	}
	return tensor, true, true, nil
}

// textEntry returns key and value of a message of two texts.
func textEntry(message []byte) (key, value string, ok bool) {
	ok = eachField(message, func(number, _ uint64, bytes []byte) bool {
		switch number {
		case 1:
			key = string(bytes)
		case 2:
			value = string(bytes)
		}
		return utf8.Valid(bytes)
	})
	return key, value, ok
}

func times(left, right uint64) uint64 {
	if over, product := bits.Mul64(left, right); over == 0 {
		return product
	}
	return math.MaxUint64
}

// checkExternal holds tensors against the files in the folder of a model; path is "" for one that is bytes alone. The
// errors are external-data-missing and external-data-refused.
func checkExternal(tensors []externalTensor, path string) error {
	if len(tensors) > 0 && path == "" {
		return externalMissing(tensors[0].location, "bytes without a folder")
	}
	files, held, wanted := map[string]uint64{}, uint64(0), uint64(0)
	for _, tensor := range tensors {
		size, known := files[tensor.location]
		if !known {
			var err error
			if size, err = externalSize(filepath.Dir(path), tensor.location); err != nil {
				return err
			}
			files[tensor.location] = size
			held += size
		}
		if tensor.bytes > size || tensor.offset > size-tensor.bytes {
			return externalRefused(fmt.Sprintf("%d bytes from %d on in '%.80s'", tensor.bytes, tensor.offset, tensor.location),
				fmt.Sprintf("a file of %d", size))
		}
		// No sum leaves 64 bits: each is at most the size of a file.
		wanted += tensor.bytes
	}
	if wanted > times(shared, held) {
		return externalRefused(fmt.Sprintf("at most %d times the %d bytes of the files that hold it", shared, held),
			fmt.Sprint(wanted))
	}
	return nil
}

// externalSize returns the size of the plain file that a location names, with all links followed: none may lead out
// of the folder.
func externalSize(folder, location string) (uint64, error) {
	if leadsOut(location) {
		return 0, externalRefused("external data in a file of the model's folder", fmt.Sprintf("'%.80s'", location))
	}
	home, err := filepath.Abs(folder)
	if err == nil {
		home, err = filepath.EvalSymlinks(home)
	}
	place := home
	if err == nil {
		place, err = filepath.EvalSymlinks(filepath.Join(home, filepath.FromSlash(location)))
	}
	if err != nil {
		return 0, externalMissing(location, whyMissing(err))
	}
	if way, err := filepath.Rel(home, place); err != nil || !filepath.IsLocal(way) {
		return 0, externalRefused("external data in a file of the model's folder",
			fmt.Sprintf("a link out of it: '%.80s'", location))
	}
	found, err := os.Stat(place)
	if err != nil {
		return 0, externalMissing(location, whyMissing(err))
	}
	if !found.Mode().IsRegular() {
		return 0, externalRefused(fmt.Sprintf("a plain file at '%.80s'", location), "a folder, pipe or device")
	}
	return uint64(found.Size()), nil
}

// leadsOut says whether a location leads out of a folder by its words alone, in the ways of any system.
func leadsOut(location string) bool {
	isSeparator := func(letter rune) bool { return letter == '/' || letter == '\\' }
	for _, part := range strings.FieldsFunc(location, isSeparator) {
		if part == ".." {
			return true
		}
	}
	return location == "" || isSeparator(rune(location[0])) || strings.HasPrefix(location[1:], ":") ||
		strings.Contains(location, "\x00")
}

func whyMissing(err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "no such file"
	}
	return "one that cannot be read"
}

func externalMissing(location, found string) error {
	return newError("external-data-missing", fmt.Sprintf("the model's weights in '%.80s' beside it", location), found,
		"keep both files together and load the model by its path")
}

func externalRefused(expected, found string) error {
	return newError("external-data-refused", expected, found, "export the model again, or ask whoever made it")
}
