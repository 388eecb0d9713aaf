"""demucs==4.1.0 einops==0.8.2 julius==0.2.8 tqdm==4.70.1"""


def blstm():
    from demucs.demucs import BLSTM

    network = BLSTM(8, layers=1, max_steps=None)
    arguments = {"inputs": {"x": "float32[batch, 8, time]"}}
    return network, arguments
