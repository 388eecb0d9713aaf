"""snntorch==1.0.0 tqdm==4.70.1"""


def leaky():
    import snntorch

    network = snntorch.Leaky(beta=0.9, init_hidden=True)
    arguments = {"inputs": {"input_": "float32[batch, 8]"}}
    return network, arguments


def rleaky():
    import snntorch

    network = snntorch.RLeaky(beta=0.9, linear_features=8)
    arguments = {
        "inputs": {"input_": "float32[batch, 8]"},
        "state": {"spk": "float32[batch, 8]", "mem": "float32[batch, 8]"},
    }
    return network, arguments


def synaptic():
    import snntorch

    network = snntorch.Synaptic(alpha=0.8, beta=0.9)
    arguments = {
        "inputs": {"input_": "float32[batch, 8]"},
        "state": {"syn": "float32[batch, 8]", "mem": "float32[batch, 8]"},
    }
    return network, arguments


def slstm():
    import snntorch

    network = snntorch.SLSTM(8, 16)
    arguments = {
        "inputs": {"input_": "float32[batch, 8]"},
        "state": {"syn": "float32[batch, 16]", "mem": "float32[batch, 16]"},
    }
    return network, arguments
