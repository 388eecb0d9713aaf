package rnnx

import "slices"

// call is one shape of call, a step or a chunk of one length, with everything allocated that it needs.
type call struct {
	known   sizes
	inputs  []port
	bound   *bound
	isChunk bool
	outputs map[string]Tensor // the engine's buffers in the shapes the caller sees
}

// port is an input as the caller sees it.
type port struct {
	name   string
	tensor Tensor // the engine's buffer
	// What stands in for the input if it is left out, where hasDefault.
	standIn    []byte
	hasDefault bool
	check      check
}

func newCall(session *Session, sides *[2][]*buffer, known sizes, whole bool) (*call, error) {
	contract := session.contract
	bound, err := bind(session, sides, known)
	if err != nil {
		return nil, err
	}
	c := &call{known: known, bound: bound, isChunk: whole, outputs: map[string]Tensor{}}
	for index, input := range contract.Inputs {
		shape, _ := resolve(contract.callerShape(input.Spec, input.IsLength, whole), known)
		tensor := Tensor{input.DType, shape, bound.inputs[index].bytes}
		made := port{name: input.Name, tensor: tensor, check: checkOf(contract, input, known["time"])}
		if input.IsLength {
			length := Constant{nil, []float64{float64(known["time"])}}
			made.standIn, made.hasDefault = length.fill(input.DType, shape).data, true
		} else if input.Default != nil {
			made.standIn, made.hasDefault = input.Default.fill(input.DType, shape).data, true
		}
		c.inputs = append(c.inputs, made)
	}
	for index, spec := range contract.Outputs {
		if shape, ok := resolve(contract.callerShape(spec, false, whole), known); ok {
			c.outputs[spec.Name] = Tensor{spec.DType, shape, bound.outputs[index].bytes}
		}
	}
	return c, nil
}

// run computes from the states of a side into those of the other.
func (c *call) run(contract *Contract, side int) error {
	if err := c.bound.run(side); err != nil || c.bound.loose == nil {
		return err
	}
	for _, spec := range contract.Outputs {
		tensor, ok := c.bound.loose[spec.Name]
		for axis := len(spec.Shape) - 1; ok && !c.isChunk && axis >= 0; axis-- {
			if spec.Shape[axis].Name == "time" && !spec.Shape[axis].IsMultiple {
				tensor.Shape = slices.Delete(tensor.Shape, axis, axis+1)
			}
		}
		if ok {
			c.outputs[spec.Name] = tensor
		}
	}
	return nil
}

// fill writes all inputs to the engine's buffers. False if anything about them is not as it should be.
func (c *call) fill(inputs Inputs) bool {
	left := len(inputs)
	for index := range c.inputs {
		port := &c.inputs[index]
		given, ok := inputs[port.name]
		switch {
		case ok:
			fits := given.DType == port.tensor.DType && len(given.data) == len(port.tensor.data) &&
				slices.Equal(given.Shape, port.tensor.Shape)
			if !fits || port.check.firstWrong(given) >= 0 {
				return false
			}
			copy(port.tensor.data, given.data)
			left--
		case port.hasDefault:
			copy(port.tensor.data, port.standIn)
		default:
			return false
		}
	}
	return left == 0
}

// fillStep writes the inputs of one step of a chunk of a step model; a length becomes 0 or 1.
func (c *call) fillStep(contract *Contract, inputs Inputs, step, time int) {
	for index, input := range contract.Inputs {
		port := &c.inputs[index]
		given, ok := inputs[port.name]
		switch {
		case input.IsLength:
			for row := range count(port.tensor.Shape) {
				valid := float64(time)
				if ok {
					valid = given.Number(row)
				}
				flag := 0.0
				if float64(step) < valid {
					flag = 1
				}
				port.tensor.setNumber(row, flag)
			}
		case ok:
			axis := axisIndex(contract.callerShape(input.Spec, false, true), "time")
			piecesOf(given.Shape, axis, 1, given.DType.Size()).take(given.data, step, port.tensor.data)
		default:
			copy(port.tensor.data, port.standIn)
		}
	}
}
