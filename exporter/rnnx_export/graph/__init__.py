"""From a captured program to an ONNX graph."""
