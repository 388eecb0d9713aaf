"""ncps==1.0.1 tqdm==4.70.1"""


def cfc():
    from ncps.torch import CfC

    network = CfC(8, 16)
    arguments = {"inputs": {"input": "float32[batch, time, 8]"}}
    return network, arguments


def cfc_mixed():
    from ncps.torch import CfC

    network = CfC(8, 16, mixed_memory=True, return_sequences=True)
    arguments = {"inputs": {"input": "float32[batch, time, 8]"}}
    return network, arguments


def cfc_wired():
    from ncps.torch import CfC
    from ncps.wirings import AutoNCP

    network = CfC(8, AutoNCP(12, 3))
    arguments = {"inputs": {"input": "float32[batch, time, 8]"}}
    return network, arguments


def cfc_cell():
    from ncps.torch import CfCCell

    network = CfCCell(8, 16)
    arguments = {
        "inputs": {"input": "float32[batch, 8]", "ts": "float32[batch, 1]"},
        "state": {"hx": "float32[batch, 16]"},
    }
    return network, arguments


def ltc():
    from ncps.torch import LTC
    from ncps.wirings import AutoNCP

    network = LTC(8, AutoNCP(12, 3))
    arguments = {"inputs": {"input": "float32[batch, time, 8]"}}
    return network, arguments
