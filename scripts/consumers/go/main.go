// Command newcomer steps a model and prints what comes out, a line for each step.
package main

import (
	"fmt"
	"log"
	"os"

	"rnnx"
)

func main() {
	session, err := rnnx.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	stream, err := session.Stream()
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	for step := range 5 {
		frame := make([]float32, 4)
		for at := range frame {
			frame[at] = float32((step*31+at*7)%19)/9.5 - 1
		}
		outputs, err := stream.Step(rnnx.Inputs{"x": rnnx.NewTensor([]int{1, 4}, frame)})
		if err != nil {
			log.Fatal(err)
		}
		y, err := rnnx.Values[float32](outputs["y"])
		if err != nil {
			log.Fatal(err)
		}
		for _, value := range y {
			fmt.Print(value, " ")
		}
		fmt.Println()
	}
}
