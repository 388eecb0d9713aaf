"""sinabs==3.1.3 charset-normalizer==3.5.3 h5py==3.16.0 nir==1.0.8 nirtorch==2.6 pbr==7.1.3
tqdm==4.70.1"""


def lif():
    import sinabs.layers as sl

    network = sl.LIF(tau_mem=20.0)
    arguments = {"inputs": {"input_data": "float32[batch, time, 8]"}}
    return network, arguments


def iaf():
    import sinabs.layers as sl

    network = sl.IAF()
    arguments = {"inputs": {"input_data": "float32[batch, time, 8]"}}
    return network, arguments


def exp_leak():
    import sinabs.layers as sl

    network = sl.ExpLeak(tau_mem=20.0)
    arguments = {"inputs": {"input_data": "float32[batch, time, 8]"}}
    return network, arguments


def lif_recurrent():
    import sinabs.layers as sl
    import torch

    network = sl.LIFRecurrent(tau_mem=20.0, rec_connect=torch.nn.Linear(8, 8))
    arguments = {"inputs": {"input_data": "float32[batch, time, 8]"}}
    return network, arguments
