"""From an ONNX graph to a program."""
