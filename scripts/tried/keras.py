"""keras==3.15.1 absl-py==2.5.1 namex==0.1.0 h5py==3.16.0 optree==0.20.0"""


def gru():
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    network = keras.Sequential(
        [keras.Input((None, 8)), keras.layers.GRU(16, return_sequences=True), keras.layers.Dense(4)]
    )
    arguments = {"inputs": {"inputs": "float32[batch, time, 8]"}}
    return network, arguments


def lstm_layer():
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    network = keras.layers.LSTM(16, return_sequences=True)
    network.build((None, None, 8))
    arguments = {"inputs": {"sequences": "float32[batch, time, 8]"}}
    return network, arguments


def stateful_lstm():
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    network = keras.Sequential(
        [keras.Input((1, 8), batch_size=2), keras.layers.LSTM(16, stateful=True), keras.layers.Dense(4)]
    )
    arguments = {"inputs": {"inputs": "float32[2, 1, 8]"}}
    return network, arguments
