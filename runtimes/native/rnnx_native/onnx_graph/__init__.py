"""The graph of an ONNX file: read, checked, folded, fused."""
