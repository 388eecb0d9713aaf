"""What computes: ONNX Runtime on its providers, or a compiled model."""
