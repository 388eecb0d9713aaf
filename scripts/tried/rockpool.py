"""rockpool==3.1.0 charset-normalizer==3.5.3 h5py==3.16.0 nir==1.0.8 nirtorch==2.6 pbr==7.1.3
scipy==1.17.1 sinabs==3.1.3 tqdm==4.70.1"""


def lif():
    from rockpool.nn.modules import LIFTorch

    network = LIFTorch(4, dt=0.001)
    arguments = {"inputs": {"input_data": "float32[batch, time, 4]"}}
    return network, arguments


def exp_syn():
    from rockpool.nn.modules import ExpSynTorch

    network = ExpSynTorch(4, dt=0.001)
    arguments = {"inputs": {"data": "float32[batch, time, 4]"}}
    return network, arguments
