"""dnc==1.1.0 tqdm==4.70.1"""


def dnc():
    from dnc import DNC

    network = DNC(6, 8, num_layers=1, nr_cells=4, cell_size=3, read_heads=1)
    arguments = {"inputs": {"input": "float32[batch, time, 6]"}}
    return network, arguments
