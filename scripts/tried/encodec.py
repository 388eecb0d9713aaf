"""encodec==0.1.1 einops==0.8.2 torchaudio==2.11.1 tqdm==4.70.1"""


def slstm():
    from encodec.modules.lstm import SLSTM

    network = SLSTM(8)
    arguments = {"inputs": {"x": "float32[batch, 8, time]"}}
    return network, arguments


def encoder():
    from encodec.modules import SEANetEncoder

    network = SEANetEncoder(n_filters=4, dimension=16, causal=True, norm="weight_norm")
    arguments = {"inputs": {"x": "float32[batch, 1, 320*time]"}}
    return network, arguments


def decoder():
    from encodec.modules import SEANetDecoder

    network = SEANetDecoder(n_filters=4, dimension=16, causal=True, norm="weight_norm", trim_right_ratio=1.0)
    arguments = {"inputs": {"z": "float32[batch, 16, time]"}}
    return network, arguments
