// Proves a model on its trace, then runs it: over raw values, frame by frame, or as a writer of text.
//
//	go run . [MODEL]                 prove it, and say what a frame is
//	go run . MODEL INPUT > OUTPUT    read frame, step, write frame; INPUT is a file, or - for standard input
//	go run . MODEL "Once"            a model over symbols continues a prompt
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"rnnx"
)

func main() {
	model, source := "model.onnx", ""
	if len(os.Args) > 1 {
		model = os.Args[1]
	}
	if len(os.Args) > 2 {
		source = os.Args[2]
	}
	agrees, err := run(model, source)
	if err != nil {
		var problem *rnnx.Error
		if errors.As(err, &problem) {
			say("error[%s]: %v", problem.Code, err)
		} else {
			say("%v", err)
		}
		os.Exit(2)
	}
	if !agrees {
		os.Exit(1)
	}
}

// say prints a line on standard error: standard output is for what the model gives.
func say(format string, values ...any) { fmt.Fprintf(os.Stderr, format+"\n", values...) }

// run says false if the model disagrees with its trace.
func run(model, source string) (bool, error) {
	session, err := rnnx.Open(model)
	if err != nil {
		return true, err
	}
	defer session.Close()
	agrees, err := prove(session, strings.TrimSuffix(model, ".onnx")+".trace.safetensors")
	if !agrees || err != nil {
		return agrees, err
	}
	contract := session.Contract()
	switch {
	case contract.Vocabulary != nil:
		return true, write(session, source)
	case contract.WholeOnly != "":
		say("it takes whole sequences: give them to Run, not to Step (%s)", contract.WholeOnly)
	case source != "":
		return true, runFrames(session, source)
	default:
		say("a frame in:  %s", described(required(contract)))
		say("a frame out: %s", described(contract.Outputs))
		if contract.StepsPerSecond > 0 {
			say("frames a second: %g", contract.StepsPerSecond)
		}
		say("run it: go run . %s in.raw > out.raw", model)
	}
	return true, nil
}

// prove replays the trace beside the model.
func prove(session *rnnx.Session, path string) (bool, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		say("not proved: there is no trace at %s", path)
		return true, nil
	}
	verdict, err := session.Replay(path)
	if err == nil && verdict.Agrees {
		say("agrees: %d steps, %.1e", verdict.Steps, verdict.MaxError)
	} else if err == nil {
		say("%v", verdict)
	}
	return verdict.Agrees, err
}

// write prints 200 symbols that continue the prompt.
func write(session *rnnx.Session, prompt string) error {
	if prompt == "" {
		prompt = string(session.Contract().Vocabulary.Symbols[0])
	}
	text, err := session.Text(7, 0.8)
	if err != nil {
		return err
	}
	defer text.Close()
	if err := text.Read(prompt); err != nil {
		return err
	}
	fmt.Print(prompt)
	for symbol, err := range text.Write(200) {
		if err != nil {
			return err
		}
		fmt.Print(string(symbol))
	}
	fmt.Println()
	return nil
}

func one(string) int { return 1 } // batch and free dimensions

func required(contract *rnnx.Contract) []rnnx.Spec {
	specs := []rnnx.Spec{}
	for _, input := range contract.Inputs {
		if input.IsRequired() {
			specs = append(specs, input.Spec)
		}
	}
	return specs
}

// described says what one step takes or gives, one tensor behind the other: "x float32[1 3]".
func described(specs []rnnx.Spec) string {
	parts := []string{}
	for _, spec := range specs {
		parts = append(parts, fmt.Sprintf("%s %s%v", spec.Name, spec.DType, spec.StepShape(one)))
	}
	return strings.Join(parts, ", ")
}

// runFrames reads a frame, steps, writes a frame, until the input ends; then a frame that is not whole gets zeros.
func runFrames(session *rnnx.Session, source string) error {
	contract := session.Contract()
	choices := []rnnx.StreamOption{}
	for _, name := range contract.FreeDimensions() {
		choices = append(choices, rnnx.WithDim(name, 1))
	}
	stream, err := session.Stream(choices...)
	if err != nil {
		return err
	}
	defer stream.Close()
	file := os.Stdin
	if source != "-" {
		if file, err = os.Open(source); err != nil {
			return err
		}
		defer file.Close()
	}
	inputs, size := rnnx.Inputs{}, 0
	for _, spec := range required(contract) {
		inputs[spec.Name] = rnnx.Zeros(spec.DType, spec.StepShape(one))
		size += len(inputs[spec.Name].Bytes())
	}
	in, out := bufio.NewReader(file), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	frame := make([]byte, size)
	for {
		count, err := io.ReadFull(in, frame)
		if errors.Is(err, io.EOF) {
			break
		} else if errors.Is(err, io.ErrUnexpectedEOF) {
			say("the last frame had %d of %d bytes: zeros stand for the others", count, size)
			clear(frame[count:])
		} else if err != nil {
			return err
		}
		begin := 0
		for _, spec := range required(contract) {
			begin += copy(inputs[spec.Name].Bytes(), frame[begin:])
		}
		outputs, err := stream.Step(inputs) // here your data goes through the model
		if err != nil {
			return err
		}
		for _, spec := range contract.Outputs {
			out.Write(outputs[spec.Name].Bytes())
		}
	}
	say("%d steps", stream.Position())
	return nil
}
