"""speechbrain==1.1.2 hyperpyyaml==1.2.3 ruamel.yaml==0.19.1 joblib==1.6.0 scipy==1.17.1
requests==2.34.2 urllib3==2.8.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3
sentencepiece==0.2.3 soundfile==0.14.0 cffi==2.1.1 pycparser==3.12 torchaudio==2.11.1
huggingface-hub==2.4.0 httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20
truststore==0.10.5 sniffio==1.3.1 tqdm==4.70.1"""


def gru():
    from speechbrain.nnet.RNN import GRU

    network = GRU(16, input_shape=(2, 5, 8))
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def ligru():
    from speechbrain.nnet.RNN import LiGRU

    network = LiGRU(16, input_shape=(2, 5, 8))
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def sligru():
    from speechbrain.nnet.RNN import SLiGRU

    network = SLiGRU(16, input_shape=(2, 5, 8))
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def qlstm():
    from speechbrain.nnet.quaternion_networks.q_RNN import QLSTM

    network = QLSTM(hidden_size=4, input_shape=(2, 5, 8))
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def crdnn():
    from speechbrain.lobes.models.CRDNN import CRDNN

    network = CRDNN(
        input_size=8,
        cnn_blocks=1,
        cnn_channels=(4,),
        rnn_layers=1,
        rnn_neurons=8,
        rnn_bidirectional=False,
        dnn_blocks=1,
        dnn_neurons=8,
    )
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def conformer():
    from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder

    network = ConformerEncoder(2, 16, 32, 2, kernel_size=5, attention_type="regularMHA")
    arguments = {"inputs": {"src": "float32[batch, time, 16]"}}
    return network, arguments


def streaming_conformer():
    from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

    network = ConformerEncoder(2, 16, 32, 2, kernel_size=5, attention_type="regularMHA")
    context = network.make_streaming_context(DynChunkTrainConfig(4, 1))
    arguments = {
        "inputs": {"src": "float32[batch, 4, 16]"},
        "state": {"context": context},
        "method": "forward_streaming",
    }
    for layer in context.layers:
        layer.mha_left_context, layer.dcconv_left_context = ("float32[batch, 4, 16]", "float32[batch, 2, 16]")
    return network, arguments
