#!/usr/bin/env bash
# torch 2.15.0: `ExportedProgram.run_decompositions` makes a free size the example's, without a word.
#
# A module writes to the views that `unbind` gives, one after the other. `torch.export` shows its batch as free,
# and so do the inputs of the exported program. After `run_decompositions({})` the same program has the batch of
# the example, and refuses every other: who exports with a free batch and decomposes later (a converter to ONNX
# does) gets a model of one batch size. Writing through `select` one index at a time keeps the size free.
#
# Seen with torch 2.15.0, Python 3.11, Linux x86-64:
#     unbind: exported free, decomposed 3
#     select: exported free, decomposed free
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 numpy
cat >"$folder/show.py" <<'PY'
import torch
from torch import nn


class Unbind(nn.Module):
    def forward(self, x, s):
        s = s.clone()
        for old, new in zip(s.unbind(-1), (s + x).unbind(-1)):
            old.copy_(new)
        return s


class Select(nn.Module):
    def forward(self, x, s):
        s, total = s.clone(), s + x
        for index in range(2):
            s.select(-1, index).copy_(total.select(-1, index))
        return s


def batch(program):
    node = next(node for node in program.graph.nodes if node.op == "placeholder")
    size = str(node.meta["val"].shape[0])
    return size if size.isdigit() else "free"


for kind in (Unbind, Select):
    examples = (torch.zeros(3, 2), torch.zeros(3, 2))
    free = ({0: torch.export.Dim.AUTO}, {0: torch.export.Dim.AUTO})
    exported = torch.export.export(kind(), examples, dynamic_shapes=free, strict=False)
    before = batch(exported)
    after = batch(exported.run_decompositions({}))
    print(f"{kind.__name__.lower()}: exported {before}, decomposed {after}")
PY
"$folder/env/bin/python" -W ignore "$folder/show.py" >"$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
unbind: exported free, decomposed 3
select: exported free, decomposed free
SEEN
