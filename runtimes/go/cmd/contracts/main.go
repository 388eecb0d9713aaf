// Command contracts reads a path from each line of its input, and says of that model "ok" or "error CODE": all that is
// looked at before the engine. What scripts/fuzz feeds; an engine that is nowhere is how far it goes.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"rnnx"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		session, err := rnnx.Open(lines.Text(), rnnx.WithLibrary("/nowhere"))
		var problem *rnnx.Error
		switch {
		case err == nil:
			session.Close()
			fmt.Println("ok")
		case !errors.As(err, &problem):
			fmt.Println("another error:", err)
		case problem.Code == "onnxruntime-missing":
			fmt.Println("ok")
		default:
			fmt.Println("error", problem.Code)
		}
	}
}
