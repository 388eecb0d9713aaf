"""s5-pytorch==0.2.1 charset-normalizer==3.5.3 scipy==1.17.1 tqdm==4.70.1"""


def s5():
    from s5 import S5

    network = S5(8, 8)
    arguments = {"inputs": {"signal": "float32[batch, time, 8]"}}
    return network, arguments
