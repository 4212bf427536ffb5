"""The published files that robustlib reads, pinned by size and sha256.

The digests were taken from files whose md5 equals the one that the publisher, or torchvision,
states; a file with another content is refused, whoever put it there.
"""

from __future__ import annotations

from robustlib.data.files import File, FileSet

NETWORKS = "https://github.com/vtjeng/MIPVerify_data/raw/35578a1/weights/mnist"

MNIST = FileSet(
    "mnist",
    "MNIST, handwritten digits, 60 000 + 10 000 of 1×28×28 (LeCun, Cortes, Burges; CC BY-SA 3.0)",
    tuple(
        File(f"MNIST/raw/{name}", size, sha256)
        for name, size, sha256 in (
            (
                "train-images-idx3-ubyte",
                47040016,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            (
                "train-labels-idx1-ubyte",
                60008,
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            (
                "t10k-images-idx3-ubyte",
                7840016,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            (
                "t10k-labels-idx1-ubyte",
                10008,
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        )
    ),
    torchvision="MNIST",
)

CIFAR10 = FileSet(
    "cifar10",
    "CIFAR-10, small photographs, 50 000 + 10 000 of 3×32×32 (Krizhevsky 2009; research use)",
    tuple(
        File(f"cifar-10-batches-py/{name}", size, sha256)
        for name, size, sha256 in (
            (
                "data_batch_1",
                31035704,
                "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
            ),
            (
                "data_batch_2",
                31035320,
                "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
            ),
            (
                "data_batch_3",
                31035999,
                "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
            ),
            (
                "data_batch_4",
                31035696,
                "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
            ),
            (
                "data_batch_5",
                31035623,
                "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
            ),
            (
                "test_batch",
                31035526,
                "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
            ),
            (
                "batches.meta",
                158,
                "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
            ),
        )
    ),
    torchvision="CIFAR10",
)

WK17A = FileSet(
    "wk17a",
    "LP_d-CNN_A for MNIST, eps 0.1, of Wong and Kolter (MIT)",
    (
        File(
            "networks/WK17a/master_seed_1_epochs_100.pth",
            666792,
            "665cce40af979286eabde7ba405af0a3a2575bbe6abbcaddc2c5e6f58621efc3",
            f"{NETWORKS}/WK17a/linf0.1/master_seed_1_epochs_100.pth",
        ),
    ),
)

RSL18A = FileSet(
    "rsl18a",
    "SDP_d-MLP_A for MNIST, eps 0.1, of Raghunathan, Steinhardt and Liang "
    "(courtesy of its authors, published in an MIT repository)",
    tuple(
        File(f"networks/RSL18a/{name}.npy", size, sha256, f"{NETWORKS}/RSL18a/linf0.1/{name}.npy")
        for name, size, sha256 in (
            (
                "W1",
                1568080,
                "074e6d3f6e2e9a3d55bbc62014e366e0d419657a27a90b0bec54d1d24e2c83f2",
            ),
            ("B1", 2080, "82e61ae93e229c823c4b3d536d2c17f41638e51fe4cb65d9d18262e4d0663e14"),
            ("W2", 20080, "b6a3fc8aca69afd8ab63378f4b077e572b2593677dc9fca2ec3f545ea7c81af1"),
            ("B2", 120, "c6fcf4acc1f5f4fbeb1946cfc80fc99e2fb32ade2db53f5ffc8f9239457ace5b"),
        )
    ),
)

FILE_SETS = {each.name: each for each in (MNIST, CIFAR10, WK17A, RSL18A)}
