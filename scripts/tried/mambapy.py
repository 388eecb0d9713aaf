"""mambapy==1.2.0 tqdm==4.70.1"""


def sequential():
    from mambapy.mamba import Mamba, MambaConfig

    network = Mamba(MambaConfig(d_model=16, n_layers=2, pscan=False))
    arguments = {"inputs": {"x": "float32[batch, time, 16]"}}
    return network, arguments


def parallel():
    from mambapy.mamba import Mamba, MambaConfig

    network = Mamba(MambaConfig(d_model=16, n_layers=2))
    arguments = {"inputs": {"x": "float32[batch, time, 16]"}}
    return network, arguments
