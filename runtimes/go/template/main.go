// Opens a model and runs it: text if it has a vocabulary, else steps on zeros.
//
//	go run . [MODEL] [PROMPT]
package main

import (
	"errors"
	"fmt"
	"os"

	"rnnx"
)

func main() {
	model, prompt := "model.onnx", ""
	if len(os.Args) > 1 {
		model = os.Args[1]
	}
	if len(os.Args) > 2 {
		prompt = os.Args[2]
	}
	if err := run(model, prompt); err != nil {
		var problem *rnnx.Error
		if errors.As(err, &problem) {
			fmt.Fprintf(os.Stderr, "error[%s]: ", problem.Code)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(model, prompt string) error {
	session, err := rnnx.Open(model)
	if err != nil {
		return err
	}
	defer session.Close()
	if session.Contract().Vocabulary != nil {
		return write(session, prompt)
	}
	return step(session)
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

// step prints the outputs of five steps on zeros; a model of whole sequences takes them as one chunk.
func step(session *rnnx.Session) error {
	contract := session.Contract()
	one := func(string) int { return 1 }
	choices := []rnnx.StreamOption{}
	for _, name := range contract.FreeDimensions() {
		choices = append(choices, rnnx.WithDim(name, 1))
	}
	stream, err := session.Stream(choices...)
	if err != nil {
		return err
	}
	defer stream.Close()
	calls, run := 5, stream.Step
	if contract.WholeOnly != "" {
		calls, run = 1, stream.Run
	}
	inputs := rnnx.Inputs{}
	for _, input := range contract.Inputs {
		shape := input.StepShape(one)
		if contract.WholeOnly != "" {
			shape = input.ChunkShape(5, one)
		}
		if input.IsRequired() {
			inputs[input.Name] = rnnx.Zeros(input.DType, shape)
		}
	}
	for range calls {
		outputs, err := run(inputs)
		if err != nil {
			return err
		}
		for _, spec := range contract.Outputs {
			value := outputs[spec.Name]
			fmt.Print(spec.Name, " ", value.Shape, ":")
			for index := range min(value.Len(), 6) {
				fmt.Print(" ", value.Number(index))
			}
			fmt.Println()
		}
	}
	return nil
}
