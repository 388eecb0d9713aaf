"""xlstm==2.0.6 tqdm==4.70.1"""


def slstm_and_mlstm():
    from xlstm import (
        mLSTMBlockConfig,
        mLSTMLayerConfig,
        sLSTMBlockConfig,
        sLSTMLayerConfig,
        xLSTMBlockStack,
        xLSTMBlockStackConfig,
    )

    network = xLSTMBlockStack(
        xLSTMBlockStackConfig(
            mlstm_block=mLSTMBlockConfig(
                mlstm=mLSTMLayerConfig(conv1d_kernel_size=4, qkv_proj_blocksize=4, num_heads=2)
            ),
            slstm_block=sLSTMBlockConfig(
                slstm=sLSTMLayerConfig(backend="vanilla", num_heads=2, conv1d_kernel_size=4)
            ),
            context_length=64,
            num_blocks=2,
            embedding_dim=16,
            slstm_at=[1],
        )
    )
    arguments = {"inputs": {"x": "float32[batch, time, 16]"}}
    return network, arguments
