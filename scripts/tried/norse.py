"""norse==1.1.0 absl-py==2.5.1 h5py==3.16.0 nir==1.0.8 nirtorch==2.6 tensorboard==2.21.0 tqdm==4.70.1"""


def lif_cell():
    import norse.torch as norse

    network = norse.LIFCell()
    arguments = {"inputs": {"input_tensor": "float32[batch, 8]"}}
    return network, arguments


def li_cell():
    import norse.torch as norse

    network = norse.LICell()
    arguments = {"inputs": {"input_tensor": "float32[batch, 8]"}}
    return network, arguments


def lif():
    import norse.torch as norse

    network = norse.LIF()
    arguments = {"inputs": {"input_tensor": "float32[time, batch, 8]"}}
    return network, arguments


def lif_recurrent():
    import norse.torch as norse

    network = norse.LIFRecurrent(8, 16)
    arguments = {"inputs": {"input_tensor": "float32[time, batch, 8]"}}
    return network, arguments


def lsnn_recurrent():
    import norse.torch as norse

    network = norse.LSNNRecurrent(8, 16)
    arguments = {"inputs": {"input_tensor": "float32[time, batch, 8]"}}
    return network, arguments
