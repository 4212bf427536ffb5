"""torchvision works beside any torch, and is imported in one place only."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

import robustlib
from robustlib.data._torchvision import torchvision


def test_data_sets_transforms_and_models_work() -> None:
    from torchvision.transforms import v2

    image = torch.rand(3, 8, 8)
    assert torch.equal(v2.functional.horizontal_flip(image), image.flip(-1))
    assert torchvision.models.resnet18(weights=None).fc.out_features == 1000
    assert torchvision.datasets.MNIST.resources


def test_nothing_else_in_the_package_imports_torchvision() -> None:
    root = Path(robustlib.__file__).parent
    pattern = re.compile(r"^\s*(import torchvision|from torchvision)", re.MULTILINE)
    found = [p.name for p in root.rglob("*.py") if pattern.search(p.read_text(encoding="utf-8"))]
    assert found == ["_torchvision.py"]


def test_data_does_not_load_torchvision_until_it_downloads() -> None:
    code = "import robustlib.data, sys; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
