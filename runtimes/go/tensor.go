package rnnx

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// DType is the type of a tensor's entries.
type DType uint8

// The dtypes of a contract.
const (
	Float16Type DType = iota
	Float32Type
	Float64Type
	Int8Type
	Int16Type
	Int32Type
	Int64Type
	Uint8Type
	Uint16Type
	Uint32Type
	Uint64Type
	BoolType
)

// Of each dtype: its name in a contract, in safetensors, its number in ONNX's TensorProto.DataType, its bytes.
var dtypes = [...]struct {
	name, code string
	onnx       uint64
	size       int
}{
	{"float16", "F16", 10, 2}, {"float32", "F32", 1, 4}, {"float64", "F64", 11, 8},
	{"int8", "I8", 3, 1}, {"int16", "I16", 5, 2}, {"int32", "I32", 6, 4}, {"int64", "I64", 7, 8},
	{"uint8", "U8", 2, 1}, {"uint16", "U16", 4, 2}, {"uint32", "U32", 12, 4}, {"uint64", "U64", 13, 8},
	{"bool", "BOOL", 9, 1},
}

// String returns the name in a contract: "float32".
func (d DType) String() string { return dtypes[d].name }

// Size returns the bytes of one entry.
func (d DType) Size() int { return dtypes[d].size }

// IsFloat says whether it has NaN and infinity.
func (d DType) IsFloat() bool { return d <= Float64Type }

// Float16 is a half float as its bits, since Go has no such type.
type Float16 uint16

// Element is a Go type that is the entry of a tensor.
type Element interface {
	Float16 | float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case Float16:
		return Float16Type
	case float32:
		return Float32Type
	case float64:
		return Float64Type
	case int8:
		return Int8Type
	case int16:
		return Int16Type
	case int32:
		return Int32Type
	case int64:
		return Int64Type
	case uint8:
		return Uint8Type
	case uint16:
		return Uint16Type
	case uint32:
		return Uint32Type
	case uint64:
		return Uint64Type
	default:
		return BoolType
	}
}

// Tensor is a dtype, a shape, and entries with the last axis running fastest.
type Tensor struct {
	DType DType
	Shape []int
	data  []byte // aligned for entries of the dtype
}

// NewTensor returns a tensor that shares the memory of data: what is written there later is what a later step
// reads. Whether shape and data fit is checked where the tensor is used.
func NewTensor[T Element](shape []int, data []T) Tensor {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), len(data)*int(unsafe.Sizeof(*new(T))))
	return Tensor{dtypeOf[T](), shape, bytes}
}

// Values returns the entries of a tensor, in its own memory. The error is wrong-dtype.
func Values[T Element](t Tensor) ([]T, error) {
	if dtype := dtypeOf[T](); dtype != t.DType {
		return nil, newError("wrong-dtype", "values asked for as "+t.DType.String(), dtype.String(), "ask for that type")
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.data))), len(t.data)/t.DType.Size()), nil
}

// Zeros returns a tensor of zeros.
func Zeros(dtype DType, shape []int) Tensor {
	return Tensor{dtype, shape, alignedBytes(count(shape) * dtype.Size())}
}

// Clone returns a copy with memory of its own.
func (t Tensor) Clone() Tensor {
	copied := Tensor{t.DType, append([]int{}, t.Shape...), alignedBytes(len(t.data))}
	copy(copied.data, t.data)
	return copied
}

// Bytes returns the memory of the entries, in this machine's byte order.
func (t Tensor) Bytes() []byte { return t.data }

// Len returns the number of entries.
func (t Tensor) Len() int { return len(t.data) / t.DType.Size() }

// Number returns entry index of the flattened values as float64.
func (t Tensor) Number(index int) float64 {
	entry := t.data[index*t.DType.Size():][:t.DType.Size()]
	order := binary.NativeEndian
	switch t.DType {
	case Float16Type:
		return Float16(order.Uint16(entry)).Float64()
	case Float32Type:
		return float64(math.Float32frombits(order.Uint32(entry)))
	case Float64Type:
		return math.Float64frombits(order.Uint64(entry))
	case Int8Type:
		return float64(int8(entry[0]))
	case Int16Type:
		return float64(int16(order.Uint16(entry)))
	case Int32Type:
		return float64(int32(order.Uint32(entry)))
	case Int64Type:
		return float64(int64(order.Uint64(entry)))
	case Uint16Type:
		return float64(order.Uint16(entry))
	case Uint32Type:
		return float64(order.Uint32(entry))
	case Uint64Type:
		return float64(order.Uint64(entry))
	default:
		return float64(entry[0])
	}
}

// setNumber converts a number to the dtype, rounding to nearest.
func (t Tensor) setNumber(index int, number float64) {
	entry := t.data[index*t.DType.Size():][:t.DType.Size()]
	order := binary.NativeEndian
	whole := math.RoundToEven(number)
	switch t.DType {
	case Float16Type:
		order.PutUint16(entry, uint16(NewFloat16(number)))
	case Float32Type:
		order.PutUint32(entry, math.Float32bits(float32(number)))
	case Float64Type:
		order.PutUint64(entry, math.Float64bits(number))
	case Int8Type, Int16Type, Int32Type, Int64Type:
		putLow(entry, uint64(int64(whole)))
	case BoolType:
		entry[0] = 0
		if number != 0 {
			entry[0] = 1
		}
	default:
		putLow(entry, uint64(whole))
	}
}

func putLow(entry []byte, bits uint64) {
	switch len(entry) {
	case 1:
		entry[0] = byte(bits)
	case 2:
		binary.NativeEndian.PutUint16(entry, uint16(bits))
	case 4:
		binary.NativeEndian.PutUint32(entry, uint32(bits))
	default:
		binary.NativeEndian.PutUint64(entry, bits)
	}
}

// Float64 returns the value of a half float.
func (h Float16) Float64() float64 {
	sign, exponent, fraction := float64(1), int(h>>10&31), float64(h&1023)
	if h>>15 != 0 {
		sign = -1
	}
	switch {
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	default:
		return sign * math.Ldexp(1024+fraction, exponent-25)
	}
}

// NewFloat16 returns the half float nearest to a number, ties to even.
func NewFloat16(number float64) Float16 {
	sign := Float16(0)
	if math.Signbit(number) {
		sign = 1 << 15
	}
	size := math.Abs(number)
	switch {
	case math.IsNaN(number):
		return sign | 0x7e00
	case size >= 65520: // halfway to the number behind the largest
		return sign | 0x7c00
	case size < 0x1p-14: // steps of 2^-24; 1024 of them are the smallest normal number
		return sign | Float16(math.RoundToEven(size*0x1p24))
	}
	fraction, exponent := math.Frexp(size) // size = fraction * 2^exponent, fraction in [0.5, 1)
	// A fraction that rounds up to 2048 carries into the exponent, as it should.
	return sign | Float16(exponent+13)<<10 + Float16(math.RoundToEven(math.Ldexp(fraction, 11)))
}

func count(shape []int) int {
	product := 1
	for _, size := range shape {
		product *= size
	}
	return product
}

// alignedBytes returns zeros whose address suits entries of every dtype.
func alignedBytes(size int) []byte {
	words := make([]uint64, (size+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size)
}
