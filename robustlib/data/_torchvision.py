"""The one import of torchvision; everything else takes it from here.

The default Linux wheel of torchvision is built for CUDA. Beside a CPU build of torch its compiled
operators cannot be loaded, and the plain import stops at the first operator that it describes
(``torchvision::nms``, then ``qnms``). Data sets and transforms need neither, so when, and only
when, the plain import fails in this way, the two schemas are declared and the import repeated.

>>> from robustlib.data._torchvision import torchvision
>>> torchvision.datasets.MNIST.__name__
'MNIST'
"""

from __future__ import annotations

import sys

import torch

SCHEMAS = tuple(
    f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
)

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    # The schemas live as long as this object.
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        _library.define(schema)
    import torchvision

__all__ = ["torchvision"]
