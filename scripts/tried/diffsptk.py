"""diffsptk==4.0.1 charset-normalizer==3.5.3 scipy==1.17.1 soundfile==0.14.0 torchaudio==2.11.1
tqdm==4.70.1"""


def delay():
    import diffsptk

    network = diffsptk.Delay(3)
    arguments = {"inputs": {"x": "float32[time]"}}
    return network, arguments


def fir():
    import diffsptk

    network = diffsptk.AllZeroDigitalFilter(2, 4)
    arguments = {"inputs": {"x": "float32[batch, 4*time]", "b": "float32[batch, time, 3]"}}
    return network, arguments


def iir():
    import diffsptk

    network = (
        diffsptk.IIR(b=[0.2, 0.3], a=[1.0, -0.5])
        if hasattr(diffsptk, "IIR")
        else diffsptk.InfiniteImpulseResponseDigitalFilter(b=[0.2, 0.3], a=[1.0, -0.5])
    )
    arguments = {"inputs": {"x": "float32[batch, time]"}}
    return network, arguments
