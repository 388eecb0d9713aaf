"""pytorch-tcn==1.2.3 tqdm==4.70.1"""


def tcn():
    from pytorch_tcn import TCN

    network = TCN(8, [16, 16], kernel_size=3, causal=True, input_shape="NLC")
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments
