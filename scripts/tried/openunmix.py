"""openunmix==1.3.0 asteroid-filterbanks==0.4.0 torchaudio==2.11.1 tqdm==4.70.1"""


def one_way():
    from openunmix.model import OpenUnmix

    network = OpenUnmix(nb_bins=33, nb_channels=1, hidden_size=16, nb_layers=1, unidirectional=True)
    arguments = {"inputs": {"x": "float32[batch, 1, 33, time]"}}
    return network, arguments
