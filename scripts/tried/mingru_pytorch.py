"""mingru-pytorch==0.2.1 tqdm==4.70.1"""


def min_gru():
    from minGRU_pytorch import minGRU

    network = minGRU(8)
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def min_gru_with_its_state():
    from minGRU_pytorch import minGRU

    network = minGRU(8)
    arguments = {
        "inputs": {"x": "float32[batch, time, 8]"},
        "state": {"prev_hidden": None},
        "constants": {"return_next_prev_hidden": True},
    }
    return network, arguments
