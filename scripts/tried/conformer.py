"""conformer==0.3.2 einops==0.8.2 tqdm==4.70.1"""


def conformer():
    from conformer import Conformer

    network = Conformer(dim=16, depth=1, dim_head=8, heads=2, conv_kernel_size=5)
    arguments = {"inputs": {"x": "float32[batch, time, 16]"}}
    return network, arguments


def convolution():
    from conformer import ConformerConvModule

    network = ConformerConvModule(dim=8, causal=True, kernel_size=5)
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments
