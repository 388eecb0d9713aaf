"""PyTorch networks with memory to ONNX with explicit state, proved step by step."""
