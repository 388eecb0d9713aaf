"""denoiser==0.1.2 tqdm==4.70.1"""


def blstm():
    from denoiser.demucs import BLSTM

    network = BLSTM(8, bi=False)
    arguments = {"inputs": {"x": "float32[time, batch, 8]"}}
    return network, arguments


def demucs():
    from denoiser.demucs import Demucs

    network = Demucs(hidden=4, depth=2, resample=1, normalize=False)
    arguments = {"inputs": {"mix": "float32[batch, 1, 256]"}}
    return network, arguments
