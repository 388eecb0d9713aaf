"""torchaudio==2.11.1 tqdm==4.70.1"""


def wave_rnn():
    from torchaudio.models import WaveRNN

    network = WaveRNN([2, 2], 8, 4, n_res_block=1, n_rnn=16, n_fc=16, n_hidden=8, n_freq=8, n_output=8)
    arguments = {"inputs": {"waveform": "float32[batch, 1, 16]", "specgram": "float32[batch, 1, 8, 8]"}}
    return network, arguments


def conv_tasnet():
    from torchaudio.models import ConvTasNet

    network = ConvTasNet(2, 16, 32, 3, 8, 16, 3, 2)
    arguments = {"inputs": {"input": "float32[batch, 1, 8*time]"}}
    return network, arguments


def deep_speech():
    from torchaudio.models import DeepSpeech

    network = DeepSpeech(8, n_hidden=16)
    arguments = {"inputs": {"x": "float32[batch, 1, time, 8]"}}
    return network, arguments


def wav2letter():
    from torchaudio.models import Wav2Letter

    network = Wav2Letter(8, "mfcc", 8)
    arguments = {"inputs": {"x": "float32[batch, 8, time]"}}
    return network, arguments


def conformer():
    from torchaudio.models import Conformer

    network = Conformer(16, 2, 32, 2, 3)
    arguments = {"inputs": {"input": "float32[batch, time, 16]", "lengths": "int64[batch] in 1..time"}}
    return network, arguments


def emformer_infer():
    from torchaudio.models import Emformer

    network = Emformer(16, 2, 32, 2, 4, left_context_length=8, right_context_length=1).eval()
    network.forward = network.infer
    arguments = {
        "inputs": {"input": "float32[batch, 5, 16]", "lengths": "int64[batch] in 5..5"},
        "state": {"states": None},
    }
    return network, arguments


def rnnt_predictor():
    from torchaudio.models.rnnt import _Predictor

    network = _Predictor(12, 16, symbol_embedding_dim=8, num_lstm_layers=1, lstm_hidden_dim=16)
    arguments = {
        "inputs": {"input": "int64[batch, time]", "lengths": "int64[batch] in 1..time"},
        "state": {"state": None},
    }
    return network, arguments
