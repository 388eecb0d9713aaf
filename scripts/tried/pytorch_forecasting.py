"""pytorch-forecasting==1.8.0 anyio==4.16.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3
cloudpickle==3.1.3 colorama==0.4.6 h11==0.16.0 httpcore2==2.16.2 httpx2==2.16.2
huggingface-hub==2.4.0 idna==3.20 joblib==1.6.0 lazy-loader==0.6 librosa==0.11.0
lightning-utilities==0.15.3 lightning==2.6.6 narwhals==2.29.0 optree==0.20.0 pandas==3.1.1
psutil==7.2.2 pytz==2026.6 regex==2026.11.19 requests==2.34.2 scikit-base==1.2.0 scikit-learn==1.9.1
scipy==1.17.1 sentencepiece==0.2.3 sniffio==1.3.1 threadpoolctl==3.8.0 tokenizers==0.23.3
torchmetrics==1.9.0 tqdm==4.70.1 transformers==5.24.0 truststore==0.10.5 urllib3==2.8.0"""


def gated_residual_network():
    from pytorch_forecasting.models.temporal_fusion_transformer.sub_modules import GatedResidualNetwork

    network = GatedResidualNetwork(8, 8, 8)
    arguments = {"inputs": {"x": "float32[batch, time, 8]"}}
    return network, arguments


def lstm():
    from pytorch_forecasting.models.nn import LSTM

    network = LSTM(6, 8, batch_first=True)
    arguments = {"inputs": {"x": "float32[batch, time, 6]"}}
    return network, arguments
