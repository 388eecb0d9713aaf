"""torchrl==0.14.1 cloudpickle==3.1.3 colorama==0.4.6 optree==0.20.0 pyvers==0.2.3 tensordict==0.15.3
tqdm==4.70.1"""


def lstm():
    from torchrl.modules import LSTM

    network = LSTM(8, 16, batch_first=True)
    arguments = {"inputs": {"input": "float32[batch, time, 8]"}}
    return network, arguments


def gru():
    from torchrl.modules import GRU

    network = GRU(8, 16, batch_first=True)
    arguments = {"inputs": {"input": "float32[batch, time, 8]"}}
    return network, arguments


def lstm_cell():
    from torchrl.modules import LSTMCell

    network = LSTMCell(8, 16)
    arguments = {
        "inputs": {"input": "float32[batch, 8]"},
        "state": {"hx": ("float32[batch, 16]", "float32[batch, 16]")},
    }
    return network, arguments
