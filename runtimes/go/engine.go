package rnnx

import (
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"
)

var ortTypes = [...]ort.TensorElementDataType{
	Float16Type: ort.TensorElementDataTypeFloat16, Float32Type: ort.TensorElementDataTypeFloat,
	Float64Type: ort.TensorElementDataTypeDouble, Int8Type: ort.TensorElementDataTypeInt8,
	Int16Type: ort.TensorElementDataTypeInt16, Int32Type: ort.TensorElementDataTypeInt32,
	Int64Type: ort.TensorElementDataTypeInt64, Uint8Type: ort.TensorElementDataTypeUint8,
	Uint16Type: ort.TensorElementDataTypeUint16, Uint32Type: ort.TensorElementDataTypeUint32,
	Uint64Type: ort.TensorElementDataTypeUint64, BoolType: ort.TensorElementDataTypeBool,
}

var environment sync.Mutex

// initialize loads the shared library, once for the process: from the path given, the variables, or where the
// system finds it. A program that uses the binding itself may have done so before.
func initialize(library string) error {
	environment.Lock()
	defer environment.Unlock()
	if ort.IsInitialized() {
		return nil
	}
	// Official builds report their use over the network unless this says otherwise before they are loaded.
	if _, set := os.LookupEnv("ORT_DISABLE_TELEMETRY"); !set {
		os.Setenv("ORT_DISABLE_TELEMETRY", "1")
	}
	candidates := []string{"libonnxruntime.so.1", "libonnxruntime.so"}
	switch runtime.GOOS {
	case "darwin":
		candidates = []string{"libonnxruntime.dylib"}
	case "windows":
		candidates = []string{"onnxruntime.dll"}
	}
	for _, named := range []string{os.Getenv("ORT_DYLIB_PATH"), os.Getenv("RNNX_ONNXRUNTIME"), library} {
		if named != "" {
			candidates = []string{named}
		}
	}
	var err error
	for _, path := range candidates {
		ort.SetSharedLibraryPath(path)
		// What goes wrong is returned; nothing is printed beside it.
		if err = ort.InitializeEnvironment(ort.WithLogLevelFatal()); err == nil {
			return nil
		}
	}
	return newError("onnxruntime-missing", "the shared library of ONNX Runtime",
		"none that can be loaded ("+firstLine(err)+")", "set RNNX_ONNXRUNTIME to the path of libonnxruntime")
}

// load a model on a provider and nowhere else; from its path, where that is given, so that weights beside it are found.
func load(data []byte, path string, contract *Contract, choices options, label string) (*ort.DynamicAdvancedSession, error) {
	if err := initialize(choices.library); err != nil {
		return nil, err
	}
	settings, err := ort.NewSessionOptions()
	if err != nil {
		return nil, refused(label, err)
	}
	defer settings.Destroy()
	for _, set := range []func() error{
		func() error { return settings.SetIntraOpNumThreads(max(choices.threads, 1)) },
		func() error { return settings.SetInterOpNumThreads(1) },
		func() error { return settings.SetLogSeverityLevel(ort.LoggingLevelFatal) },
		func() error { return settings.AddSessionConfigEntry("session.intra_op.allow_spinning", "0") },
	} {
		if err := set(); err != nil {
			return nil, refused(label, err)
		}
	}
	if choices.provider == "cuda" {
		if err := appendCUDA(settings); err != nil {
			return nil, noCUDA(err)
		}
	}
	var session *ort.DynamicAdvancedSession
	given, taken := graphNames(contract)
	if path != "" {
		session, err = ort.NewDynamicAdvancedSession(path, given, taken, settings)
	} else {
		session, err = ort.NewDynamicAdvancedSessionWithONNXData(data, given, taken, settings)
	}
	if err != nil && choices.provider == "cuda" && strings.Contains(err.Error(), "CUDA") {
		return nil, noCUDA(err)
	} else if err != nil {
		return nil, refused(label, err)
	}
	return session, nil
}

// graphNames returns the inputs and outputs of the graph, those of the caller before the states.
func graphNames(contract *Contract) (given, taken []string) {
	for _, input := range contract.Inputs {
		given = append(given, input.Name)
	}
	for _, spec := range contract.Outputs {
		taken = append(taken, spec.Name)
	}
	for _, state := range contract.States {
		given, taken = append(given, state.Input), append(taken, state.Output)
	}
	return given, taken
}

func appendCUDA(settings *ort.SessionOptions) error {
	cuda, err := ort.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	defer cuda.Destroy()
	if err := cuda.Update(map[string]string{"use_tf32": "0"}); err != nil {
		return err
	}
	return settings.AppendExecutionProviderCUDA(cuda)
}

func noCUDA(err error) error {
	found := firstLine(err)
	if strings.Contains(found, "not enabled in this build") {
		found = "an ONNX Runtime built without CUDA"
	}
	return newError("provider-unavailable", "CUDA to work on this machine", found,
		"install ONNX Runtime with CUDA (in Python: rnnx[cuda], without onnxruntime), or use provider cpu")
}

func refused(label string, err error) error {
	return newError("engine-refused", label+" to load in ONNX Runtime", firstLine(err),
		"export it again, or install a newer ONNX Runtime")
}

func failed(err error) error {
	return newError("engine-failed", "ONNX Runtime to compute the step", firstLine(err),
		"the states are unchanged; check that the contract fits the graph, or export the model again")
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return line
}

// buffer is memory that stays bound: Go's, pinned, which the engine reads and writes in place.
type buffer struct {
	value ort.Value
	bytes []byte
	pin   runtime.Pinner
}

func newBuffer(dtype DType, shape []int) (*buffer, error) {
	b := &buffer{}
	var err error
	if len(shape) == 0 {
		err = b.makeScalar(dtype)
	} else {
		numbers := make(ort.Shape, len(shape))
		for index, size := range shape {
			numbers[index] = int64(size)
		}
		b.bytes = alignedBytes(count(shape) * dtype.Size())
		b.value, err = ort.NewCustomDataTensor(numbers, b.bytes, ortTypes[dtype])
	}
	if err != nil {
		return nil, failed(err)
	}
	// The engine keeps the address between calls, which Go allows for pinned memory alone.
	b.pin.Pin(unsafe.SliceData(b.bytes))
	return b, nil
}

// makeScalar makes a tensor without axes, for which the binding has a type of its own.
func (b *buffer) makeScalar(dtype DType) (err error) {
	switch dtype {
	case Float32Type:
		b.value, err = ort.NewEmptyScalar[float32]()
	case Float64Type:
		b.value, err = ort.NewEmptyScalar[float64]()
	case Int8Type:
		b.value, err = ort.NewEmptyScalar[int8]()
	case Int16Type:
		b.value, err = ort.NewEmptyScalar[int16]()
	case Int32Type:
		b.value, err = ort.NewEmptyScalar[int32]()
	case Int64Type:
		b.value, err = ort.NewEmptyScalar[int64]()
	case Uint8Type:
		b.value, err = ort.NewEmptyScalar[uint8]()
	case Uint16Type:
		b.value, err = ort.NewEmptyScalar[uint16]()
	case Uint32Type:
		b.value, err = ort.NewEmptyScalar[uint32]()
	case Uint64Type:
		b.value, err = ort.NewEmptyScalar[uint64]()
	case BoolType:
		b.value, err = ort.NewEmptyScalar[bool]()
	default:
		return newError("engine-refused", "tensors that the Go binding can make", dtype.String()+" without axes",
			"export the model with an axis of 1 there")
	}
	if err == nil {
		// Its Set replaces the memory that the engine knows, so the entry itself is written instead.
		memory := reflect.ValueOf(b.value).Elem().FieldByName("data").UnsafePointer()
		b.bytes = unsafe.Slice((*byte)(memory), dtype.Size())
	}
	return err
}

func (b *buffer) close() {
	b.value.Destroy()
	b.pin.Unpin()
}

// bound is inputs, outputs and states bound for calls of one size: a step binds nothing anew.
type bound struct {
	session  *Session
	inputs   []*buffer
	outputs  []*buffer         // nil for one whose size is known only after a run
	bindings [2]*ort.IoBinding // one for each side that is read; nil if there is such an output
	sides    *[2][]*buffer
	loose    map[string]Tensor // such outputs of the latest run, in the shape of the graph
}

func bind(session *Session, sides *[2][]*buffer, known sizes) (_ *bound, err error) {
	b := &bound{session: session, sides: sides}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	contract := session.contract
	make := func(spec Spec) (*buffer, error) {
		shape, ok := resolve(spec.Shape, known)
		if !ok {
			b.loose = map[string]Tensor{}
			return nil, nil
		}
		return newBuffer(spec.DType, shape)
	}
	for _, input := range contract.Inputs {
		made, err := make(input.Spec)
		if err != nil {
			return nil, err
		}
		b.inputs = append(b.inputs, made)
	}
	for _, spec := range contract.Outputs {
		made, err := make(spec)
		if err != nil {
			return nil, err
		}
		b.outputs = append(b.outputs, made)
	}
	for side := 0; side < 2 && b.loose == nil; side++ {
		if b.bindings[side], err = session.engine.CreateIoBinding(); err != nil {
			return nil, failed(err)
		}
		for index, spec := range contract.Outputs {
			if err := b.bindings[side].BindOutput(spec.Name, b.outputs[index].value); err != nil {
				return nil, failed(err)
			}
		}
		for index, state := range contract.States {
			if err := b.bindings[side].BindOutput(state.Output, sides[1-side][index].value); err != nil {
				return nil, failed(err)
			}
		}
		if err := b.bindInputs(side); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bound) bindInputs(side int) error {
	for index, input := range b.session.contract.Inputs {
		if err := b.bindings[side].BindInput(input.Name, b.inputs[index].value); err != nil {
			return failed(err)
		}
	}
	for index, state := range b.session.contract.States {
		if err := b.bindings[side].BindInput(state.Input, b.sides[side][index].value); err != nil {
			return failed(err)
		}
	}
	return nil
}

// run computes from the states of a side into those of the other.
func (b *bound) run(side int) error {
	if b.loose != nil {
		return b.runLoose(side)
	}
	if b.session.provider == "cuda" {
		// Binding is what copies an input to the GPU, states too: the binding has no tensors there.
		if err := b.bindInputs(side); err != nil {
			return err
		}
	}
	if err := b.session.engine.RunWithBinding(b.bindings[side]); err != nil {
		return failed(err)
	}
	return nil
}

// runLoose runs without a binding, which cannot leave the size of an output open.
func (b *bound) runLoose(side int) error {
	given, taken := []ort.Value{}, []ort.Value{}
	for _, input := range b.inputs {
		given = append(given, input.value)
	}
	for _, output := range b.outputs {
		if output == nil {
			taken = append(taken, nil)
		} else {
			taken = append(taken, output.value)
		}
	}
	for index := range b.sides[side] {
		given, taken = append(given, b.sides[side][index].value), append(taken, b.sides[1-side][index].value)
	}
	if err := b.session.engine.Run(given, taken); err != nil {
		return failed(err)
	}
	for index, spec := range b.session.contract.Outputs {
		if b.outputs[index] == nil {
			b.loose[spec.Name] = copyOf(spec.DType, taken[index])
			taken[index].Destroy()
		}
	}
	return nil
}

// copyOf a tensor that the engine made, whose type in the binding depends on its dtype.
func copyOf(dtype DType, value ort.Value) Tensor {
	shape := []int{}
	for _, size := range value.GetShape() {
		shape = append(shape, int(size))
	}
	tensor := Zeros(dtype, shape)
	entries := reflect.ValueOf(value).MethodByName("GetData").Call(nil)[0]
	copy(tensor.data, unsafe.Slice((*byte)(entries.UnsafePointer()), len(tensor.data)))
	return tensor
}

func (b *bound) close() {
	for _, binding := range b.bindings {
		if binding != nil {
			binding.Destroy()
		}
	}
	for _, buffer := range append(b.inputs, b.outputs...) {
		if buffer != nil {
			buffer.close()
		}
	}
}
