"""A miniature of the published files."""

from __future__ import annotations

import hashlib
import pickle
import struct

import numpy as np

from robustlib.data.files import File, FileSet

IMAGES = 5


def idx(array: np.ndarray) -> bytes:
    """LeCun's format: two zero bytes, type 8 (uint8), number of dimensions, sizes, content."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def miniature() -> dict[str, bytes]:
    """Content by path: five images a split of MNIST, CIFAR-10 batches of three images."""
    rng = np.random.default_rng(0)
    content = {}
    for prefix in ("train", "t10k"):
        images = rng.integers(0, 256, (IMAGES, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, IMAGES, dtype=np.uint8)
        content[f"MNIST/raw/{prefix}-images-idx3-ubyte"] = idx(images)
        content[f"MNIST/raw/{prefix}-labels-idx1-ubyte"] = idx(labels)
    content["networks/tiny/tiny.npy"] = b"a network"
    return content


def pin(name: str, content: dict[str, bytes], torchvision: str = "", url: str = "") -> FileSet:
    files = tuple(
        File(path, len(value), hashlib.sha256(value).hexdigest(), f"{url}/{path}")
        for path, value in content.items()
    )
    return FileSet(name, name, files, torchvision)


def cifar_batch(rng: np.random.Generator) -> bytes:
    data = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
    return pickle.dumps({"data": data, "labels": [0, 1, 2]}, protocol=3)
