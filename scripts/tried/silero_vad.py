"""silero-vad==6.2.3 tqdm==4.70.1"""


def vad():
    from silero_vad import load_silero_vad

    network = load_silero_vad()
    arguments = {"inputs": {"x": "float32[batch, 512]", "sr": "int64[] in 16000..16000"}}
    return network, arguments
