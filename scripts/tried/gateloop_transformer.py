"""gateloop-transformer==0.2.5 einops==0.8.2 rotary-embedding-torch==0.9.1 tqdm==4.70.1"""


def simple_gate_loop():
    from gateloop_transformer import SimpleGateLoopLayer

    network = SimpleGateLoopLayer(8)
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments
