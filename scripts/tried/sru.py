"""sru==2.6.0 tqdm==4.70.1"""


def sru():
    from sru import SRU

    network = SRU(8, 16)
    arguments = {"inputs": {"input": "float32[time, batch, 8]"}}
    return network, arguments
