#!/usr/bin/env bash
# sinabs 3.1.3: a deep copy of a layer is another layer: in training mode, thawed, without hooks; or there is none.
#
# The layers make their copy anew from the arguments of their constructor and copy parameters and buffers into it.
# What is no argument is lost: `copy.deepcopy(network.eval())` trains again, parameters that were frozen require a
# gradient, forward hooks are gone. A layer with recurrent connections is not copied at all: the parameters of its
# part are looked for among its own attributes.
#
# Seen with sinabs 3.1.3, torch 2.15.0, Python 3.11, Linux x86-64:
#     IAF in eval mode: its copy is in training mode
#     LIF with frozen parameters: its copy has 1 that require a gradient
#     IAF with a forward hook: its copy has none
#     LIFRecurrent: AttributeError: 'LIFRecurrent' object has no attribute 'rec_connect.weight'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet sinabs==3.1.3 torch==2.15.0 numpy
cat >"$folder/show.py" <<'PY'
import copy

import sinabs.layers as sl
import torch

network = torch.nn.Sequential(torch.nn.Linear(4, 4), sl.IAF()).eval()
training = copy.deepcopy(network)[1].training
print(f"IAF in eval mode: its copy is in {'training' if training else 'eval'} mode")

layer = sl.LIF(tau_mem=20.0).requires_grad_(False)
thawed = sum(parameter.requires_grad for parameter in copy.deepcopy(layer).parameters())
print(f"LIF with frozen parameters: its copy has {thawed} that require a gradient")

layer = sl.IAF()
layer.register_forward_hook(lambda *_: None)
hooks = len(copy.deepcopy(layer)._forward_hooks)
print(f"IAF with a forward hook: its copy has {hooks or 'none'}")

try:
    copy.deepcopy(sl.LIFRecurrent(tau_mem=20.0, rec_connect=torch.nn.Linear(8, 8)))
    said = "is copied"
except AttributeError as error:
    said = f"AttributeError: {error}"
print(f"LIFRecurrent: {said}")
assert training and thawed and not hooks and said.startswith("AttributeError"), "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/show.py"
