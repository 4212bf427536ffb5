"""The table of networks: a new one is one row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from robustlib import checks
from robustlib.zoo import architectures


@dataclass(frozen=True)
class Info:
    """What is known of a network before it is loaded.

    Attributes
    ----------
    name : str
        The name for :func:`robustlib.zoo.load`.
    title : str
        One line for people: what it is and how it was trained.
    paper_name : str
        The architecture's name in its paper.
    build : callable
        Makes the untrained network.
    input_shape : tuple of int
        Shape of one input, without the batch; values in [0, 1].
    classes : int
        Number of logits.
    data : str
        The data set that it was trained on.
    origin : {"authors", "robustlib"}
        Whether other authors published it, or ``robustlib train NAME`` makes it.
    """

    name: str
    title: str
    paper_name: str
    build: Callable[[], nn.Sequential]
    input_shape: tuple[int, ...]
    classes: int
    data: str
    origin: str = "robustlib"

    @property
    def architecture(self) -> str:
        """The layers on one line."""
        return architectures.describe(self.build())


NETWORKS = {
    row.name: row
    for row in (
        Info(
            "wk17a",
            "trained against the LP dual bound at l-inf eps 0.1 (Wong and Kolter 2018)",
            "LP_d-CNN_A",
            architectures.cnn_a,
            (1, 28, 28),
            10,
            "mnist",
            "authors",
        ),
        Info(
            "rsl18a",
            "trained against the SDP dual bound at l-inf eps 0.1 (Raghunathan et al. 2018)",
            "SDP_d-MLP_A",
            lambda: architectures.mlp([500]),
            (1, 28, 28),
            10,
            "mnist",
            "authors",
        ),
        *(
            Info(
                f"mlp_{hidden}x20",
                f"{hidden} hidden layers of 20, trained on clean images only",
                f"MLP-{hidden}×[20]",
                partial(architectures.mlp, [20] * hidden),
                (1, 28, 28),
                10,
                "mnist",
            )
            for hidden in (2, 3)
        ),
        Info(
            "adv_mlp_b",
            "two hidden layers of 200, adversarially trained at l-inf eps 0.1, weights kept small",
            "Adv-MLP_B",
            lambda: architectures.mlp([200, 200]),
            (1, 28, 28),
            10,
            "mnist",
        ),
        Info(
            "adv_cnn_a",
            "adversarially trained at l-inf eps 0.1 (Madry et al. 2018), weights kept small",
            "Adv-CNN_A",
            architectures.cnn_a,
            (1, 28, 28),
            10,
            "mnist",
        ),
        Info(
            "adv_cnn_03",
            "adversarially trained at l-inf eps 0.32, for 0.3 (Madry et al. 2018)",
            "the MNIST network of Madry et al., smaller",
            architectures.strided_cnn,
            (1, 28, 28),
            10,
            "mnist",
        ),
        *(
            Info(
                f"crown_ibp_cnn_a_0{tenth}",
                f"trained against CROWN-IBP bounds at l-inf eps 0.{tenth} (Zhang et al. 2020)",
                f"CNN_A, in place of LP_d-CNN_A at eps 0.{tenth}",
                architectures.cnn_a,
                (1, 28, 28),
                10,
                "mnist",
            )
            for tenth in (2, 3, 4)
        ),
        Info(
            "cifar_cnn_a",
            "trained against CROWN-IBP bounds at l-inf eps 2/255 (Zhang et al. 2020)",
            "CNN_A for CIFAR-10, in place of LP_d-CNN_A",
            partial(architectures.cnn_a, 3, 32),
            (3, 32, 32),
            10,
            "cifar10",
        ),
        Info(
            "cifar_resnet",
            "a small residual network, trained against CROWN-IBP bounds at l-inf eps 8/255",
            "a smaller RES, in place of LP_d-RES",
            architectures.cifar_resnet,
            (3, 32, 32),
            10,
            "cifar10",
        ),
        Info(
            "cifar_resnet_standard",
            "a small residual network, twice as wide as cifar_resnet, trained on clean images only",
            "RES, smaller and of width 16",
            partial(architectures.cifar_resnet, 16),
            (3, 32, 32),
            10,
            "cifar10",
        ),
        Info(
            "lenet",
            "Caffe's LeNet, trained on clean images only",
            "LeNet (original)",
            architectures.lenet,
            (1, 28, 28),
            10,
            "mnist",
        ),
        *(
            Info(
                f"lenet_{method}_{rounds}",
                f"Caffe's LeNet, fine-tuned on examples of {text}, round {rounds}",
                f"LeNet ({paper}, T = {rounds})",
                architectures.lenet,
                (1, 28, 28),
                10,
                "mnist",
            )
            for method, text, paper in (
                ("cegar", "the authors' linear programs", "Our Algo."),
                ("lbfgs", "L-BFGS-B", "Baseline"),
            )
            for rounds in (1, 2)
        ),
        Info(
            "nin",
            "nine layers of convolutions, width 96, trained on clean images only",
            "NiN (original)",
            architectures.nin,
            (3, 32, 32),
            10,
            "cifar10",
        ),
        Info(
            "nin_cegar_1",
            "the network nin, fine-tuned on examples of the authors' linear programs",
            "NiN (Our Algo., T = 1)",
            architectures.nin,
            (3, 32, 32),
            10,
            "cifar10",
        ),
        *(
            Info(
                f"digits_cnn_{bounds}",
                f"a small convolutional network, trained against {text} bounds at l-inf eps 0.1",
                "CNN_A, shrunk to 8×8 images",
                architectures.digits_cnn,
                (1, 8, 8),
                10,
                "digits",
            )
            for bounds, text in (("ibp", "interval"), ("crown_ibp", "CROWN-IBP"))
        ),
        Info(
            "digits_mlp",
            "two hidden layers of 30, adversarially trained at l-inf eps 0.1",
            "Adv-MLP-2×[30]",
            lambda: architectures.mlp([30, 30], inputs=64),
            (1, 8, 8),
            10,
            "digits",
        ),
        Info(
            "digits_mlp_standard",
            "two hidden layers of 30, trained on clean images only",
            "MLP-2×[30]",
            lambda: architectures.mlp([30, 30], inputs=64),
            (1, 8, 8),
            10,
            "digits",
        ),
        Info(
            "digits_cnn",
            "a small convolutional network, adversarially trained at l-inf eps 0.1",
            "Adv-CNN_A, shrunk to 8×8 images",
            architectures.digits_cnn,
            (1, 8, 8),
            10,
            "digits",
        ),
        *(
            Info(
                f"{name}_linear",
                "a linear softmax classifier, trained on clean images only",
                "softmax regression",
                partial(architectures.mlp, [], math.prod(shape)),
                shape,
                10,
                data,
            )
            for name, data, shape in (
                ("digits", "digits", (1, 8, 8)),
                ("mnist", "mnist", (1, 28, 28)),
                ("cifar", "cifar10", (3, 32, 32)),
            )
        ),
        Info(
            "cifar_cnn_a_standard",
            "the architecture of cifar_cnn_a, trained on clean images only",
            "CNN_A for CIFAR-10, standard training",
            partial(architectures.cnn_a, 3, 32),
            (3, 32, 32),
            10,
            "cifar10",
        ),
        *(
            Info(
                f"digits_cnn_{name}",
                f"a small convolutional network, {text}",
                "CNN_A, shrunk to 8×8 images",
                architectures.digits_cnn,
                (1, 8, 8),
                10,
                "digits",
            )
            for name, text in (
                ("noise", "trained with Gaussian noise of standard deviation 0.3"),
                ("shift", "trained on images shifted by up to one pixel"),
                ("fgsm", "trained on FGSM's images at l-inf eps 0.1 (Goodfellow et al. 2015)"),
                ("r_fgsm", "trained on R+FGSM's images at l-inf eps 0.1 (Tramèr et al. 2018)"),
                ("ensemble", "ensemble adversarial training at l-inf eps 0.1 (Tramèr et al. 2018)"),
            )
        ),
        Info(
            "toy",
            "eight ReLUs that separate two classes of points in the plane",
            "the network of Bastani et al., Figure 1",
            architectures.toy_net,
            (2,),
            2,
            "toys.two_class",
        ),
    )
}


def names() -> list[str]:
    """The names that :func:`robustlib.zoo.load` knows.

    >>> from robustlib import zoo
    >>> "wk17a" in zoo.list()
    True
    """
    return list(NETWORKS)


def info(name: str) -> Info:
    """What is known of the network ``name``, without loading it.

    Raises
    ------
    ValueError
        If there is no such network; the message holds the nearest names.

    Examples
    --------
    >>> from robustlib import zoo
    >>> zoo.info("wk17a").input_shape
    (1, 28, 28)
    """
    return NETWORKS[checks.choice("name", name, NETWORKS)]
