"""The ONNX file and its contract."""
