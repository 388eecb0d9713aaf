"""spikingjelly==2.0.0 loguru==0.7.3 tqdm==4.70.1"""


def lif_node():
    from spikingjelly.activation_based import neuron

    network = neuron.LIFNode()
    arguments = {"inputs": {"x": "float32[batch, 8]"}}
    return network, arguments


def lif_node_of_many_steps():
    from spikingjelly.activation_based import neuron

    network = neuron.LIFNode(step_mode="m")
    arguments = {"inputs": {"x_seq": "float32[time, batch, 8]"}}
    return network, arguments
