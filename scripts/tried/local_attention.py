"""local-attention==1.11.2 einops==0.8.2 hyper-connections==0.4.11 tqdm==4.70.1"""


def causal():
    from local_attention.transformer import LocalMHA

    network = LocalMHA(dim=16, window_size=4, heads=2, dim_head=8, causal=True)
    arguments = {"inputs": {"x": "float32[batch, 4*time, 16]"}}
    return network, arguments
