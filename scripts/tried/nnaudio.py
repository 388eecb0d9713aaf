"""nnaudio==0.3.4 charset-normalizer==3.5.3 scipy==1.17.1 tqdm==4.70.1"""


def stft():
    from nnAudio.features import STFT

    network = STFT(n_fft=64, hop_length=16, center=False, verbose=False)
    arguments = {"inputs": {"x": "float32[batch, 16*time]"}}
    return network, arguments
