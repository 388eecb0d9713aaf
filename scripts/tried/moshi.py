"""moshi==0.2.13 einops==0.8.2 httpx2==2.16.2 huggingface-hub==2.4.0 idna==3.20 sentencepiece==0.2.3
tqdm==4.70.1"""


def streaming_conv():
    from moshi.modules.conv import StreamingConv1d

    network = StreamingConv1d(4, 8, 3, causal=True)
    arguments = {"inputs": {"x": "float32[batch, 4, time]"}}
    return network, arguments


def encoder():
    from moshi.modules.seanet import SEANetEncoder

    network = SEANetEncoder(
        channels=1,
        dimension=16,
        n_filters=4,
        ratios=[4, 2],
        causal=True,
        pad_mode="constant",
        norm="none",
        true_skip=True,
    )
    arguments = {"inputs": {"x": "float32[batch, 1, 8*time]"}}
    return network, arguments


def decoder():
    from moshi.modules.seanet import SEANetDecoder

    network = SEANetDecoder(
        channels=1,
        dimension=16,
        n_filters=4,
        ratios=[4, 2],
        causal=True,
        pad_mode="constant",
        norm="none",
        true_skip=True,
    )
    arguments = {"inputs": {"z": "float32[batch, 16, time]"}}
    return network, arguments


def transformer():
    from moshi.modules.transformer import StreamingTransformer

    network = StreamingTransformer(
        16, 2, 2, dim_feedforward=32, causal=True, context=8, positional_embedding="rope"
    )
    arguments = {"inputs": {"x": "float32[batch, time, 16]"}}
    return network, arguments
