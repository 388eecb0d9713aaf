// Package rnnx runs networks with memory, exported by rnnx, one time step at a time.
//
// A model is a function (inputs, states) -> (outputs, next states). The contract inside the ONNX file says which
// graph input is which state, what it starts as, and which axis is the batch and which is time. A Session is a
// loaded model; a Stream is a sequence being run, and owns the states.
//
//	session, err := rnnx.Open("denoiser.onnx")
//	stream, err := session.Stream()
//	frame := make([]float32, 257)
//	outputs, err := stream.Step(rnnx.Inputs{"x": rnnx.NewTensor([]int{1, 257}, frame)})
//	y, err := rnnx.Values[float32](outputs["y"]) // [1, 257]
package rnnx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	ort "github.com/yalue/onnxruntime_go"
)

// Version is the version of this module, which is rnnx's.
const Version = "0.1.0"

// Session is a loaded model. Goroutines may share it.
type Session struct {
	contract *Contract
	provider string
	engine   *ort.DynamicAdvancedSession

	lock     sync.Mutex
	streams  int // that are open
	isClosed bool
}

type options struct {
	provider, library string
	threads           int
}

// Option says how a model is loaded.
type Option func(*options)

// WithProvider names what computes a step: "cpu", the default, or "cuda". One that does not work is an error,
// never another one.
func WithProvider(name string) Option { return func(o *options) { o.provider = name } }

// WithLibrary names ONNX Runtime's shared library. The first session of a process decides for all. Without it
// the variables RNNX_ONNXRUNTIME and ORT_DYLIB_PATH count, and then where the system finds it.
func WithLibrary(path string) Option { return func(o *options) { o.library = path } }

// WithThreads sets the threads inside one operator; one is the fastest for a step of a small network.
func WithThreads(count int) Option { return func(o *options) { o.threads = count } }

// Open loads the model at a path; weights in other files are read from its folder alone. The error codes are
// file-missing, cannot-read, not-onnx, external-data-missing, external-data-refused, no-contract, contract-invalid,
// contract-newer, contract-requires, contract-graph, onnxruntime-missing, provider-unknown, provider-unavailable and
// engine-refused.
func Open(path string, choices ...Option) (*Session, error) {
	data, err := ReadFile(path, "an ONNX model")
	if err != nil {
		return nil, err
	}
	return open(data, path, path, choices)
}

// OpenBytes loads a model from its bytes, with errors as Open; one with weights in another file needs Open.
func OpenBytes(data []byte, choices ...Option) (*Session, error) {
	return open(data, "", "the model", choices)
}

func open(data []byte, path, label string, choices []Option) (*Session, error) {
	chosen := options{provider: "cpu"}
	for _, choose := range choices {
		choose(&chosen)
	}
	if chosen.provider != "cpu" && chosen.provider != "cuda" {
		return nil, newError("provider-unknown", "a provider out of cpu, cuda", "'"+chosen.provider+"'",
			"choose one of these")
	}
	contract, isExternal, err := readModel(data, path, label)
	if err != nil {
		return nil, err
	}
	if !isExternal {
		path = "" // what was read is what is loaded
	}
	engine, err := load(data, path, contract, chosen, label)
	if err != nil {
		return nil, err
	}
	return &Session{contract: contract, provider: chosen.provider, engine: engine}, nil
}

// Contract says what the model takes, gives and carries. Leave it as it is.
func (s *Session) Contract() *Contract { return s.contract }

// ID is the identity of the model; snapshots and traces are tied to it.
func (s *Session) ID() string { return s.contract.ID }

// Provider is the name of what computes a step.
func (s *Session) Provider() string { return s.provider }

// Close lets go of the model, once the last of its streams is closed. Closing twice is fine.
func (s *Session) Close() {
	s.lock.Lock()
	defer s.lock.Unlock()
	if !s.isClosed && s.streams == 0 {
		s.engine.Destroy()
	}
	s.isClosed = true
}

func (s *Session) join() error {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.isClosed {
		return newError("session-closed", "a session that is open", "one that was closed", "open the model again")
	}
	s.streams++
	return nil
}

func (s *Session) leave() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.streams--
	if s.isClosed && s.streams == 0 {
		s.engine.Destroy()
	}
}

// ReadFile returns the bytes of a file; what it should be stands in the message ("a trace"). The errors are
// file-missing and cannot-read.
func ReadFile(path, what string) ([]byte, error) {
	data, err := os.ReadFile(path)
	expected := fmt.Sprintf("%s at %s", what, path)
	var reason *fs.PathError
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, newError("file-missing", expected, "no such file", "check the path")
	case errors.Is(err, syscall.EISDIR):
		return nil, newError("cannot-read", expected, "a folder", "name a readable file")
	case errors.As(err, &reason):
		return nil, newError("cannot-read", expected, reason.Err.Error(), "name a readable file")
	}
	return nil, newError("cannot-read", expected, err.Error(), "name a readable file")
}
