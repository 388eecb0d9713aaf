#!/usr/bin/env bash
# snntorch 1.0.0: `SLSTM` forgets its state at each step, unless it has as many units as inputs.
#
# The layer is handed its two states, as its documentation shows, and gives the next ones back. Where the size of
# the input is not the size of the state it takes the state for one of another batch and begins with zeros again,
# without a word: the layer has no memory, and trains as if it had none. With as many inputs as units it remembers.
#
# Seen with snntorch 1.0.0, torch 2.15.0, Python 3.11, Linux x86-64:
#     6 inputs, 8 units: other states change nothing
#     8 inputs, 8 units: other states change the next ones
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet snntorch==1.0.0 torch==2.15.0 numpy
cat >"$folder/show.py" <<'PY'
import snntorch
import torch

found = []
for inputs in (6, 8):
    torch.manual_seed(0)
    layer = snntorch.SLSTM(inputs, 8).eval()
    x = torch.randn(2, inputs)
    with torch.no_grad():
        ends = [layer(x, torch.full((2, 8), start), torch.full((2, 8), start)) for start in (0.25, 0.75)]
    same = all(torch.equal(one, other) for one, other in zip(*ends))
    found.append(same)
    print(f"{inputs} inputs, 8 units: other states change {'nothing' if same else 'the next ones'}")
assert found == [True, False], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/show.py"
