"""Fine-tuning on adversarial examples of the training set, in rounds (Bastani et al. 2016)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from robustlib import checks
from robustlib.training.loop import epoch
from robustlib.training.recipe import Recipe

Find = Callable[[nn.Sequential, Tensor], Sequence[Tensor | None]]


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A network after rounds of fine-tuning.

    Attributes
    ----------
    after : the network after each round, nn.Sequential in evaluation mode, its parameters frozen.
    searched, found : for each round, the training inputs that were tried and the adversarial
        examples that were found and joined the training set.
    """

    after: tuple[nn.Sequential, ...]
    searched: tuple[int, ...]
    found: tuple[int, ...]

    @property
    def net(self) -> nn.Sequential:
        """The network after the last round."""
        return self.after[-1]


def fine_tune(
    net: nn.Sequential,
    find: Find,
    *,
    recipe: Recipe,
    rounds: int = 1,
    examples: int = 5000,
    progress: Callable[[int, int, str], None] | None = None,
) -> FineTuned:
    """Search adversarial examples on the training set, train on with them, T times.

    Every round starts from inputs of the original training set only, so that no perturbation is
    perturbed again; what it finds joins the training set, under the label of the input that it was
    made from, and stays for later rounds.

    Parameters
    ----------
    net : nn.Sequential
        Unchanged; in evaluation mode.
    find : callable
        Maps a network and inputs (n, …) to a point, or None, for each of them, such as ``lambda
        net, x: robustlib.pointwise_robustness(net, x, alpha=3.0, pixels=255).rounded``.
    recipe : Recipe
        How to train on in each round: as a rule the network's own with few epochs and a tenth of
        the rate, ``dataclasses.replace(RECIPES[name], epochs=…, learning_rate=…)``. Its seed also
        draws the inputs that are tried.
    rounds : int
        T.
    examples : int
        Inputs of the training set that are tried in each round, drawn without repetition; those
        that the network misclassifies are passed over.
    progress : callable, optional
        Called as ``progress(done, total, text)`` after every epoch.

    Returns
    -------
    FineTuned

    Examples
    --------
    >>> import dataclasses
    >>> from robustlib import training, zoo
    >>> recipe = dataclasses.replace(training.RECIPES["toy"], epochs=1, learning_rate=1e-3)
    >>> tuned = training.fine_tune(
    ...     zoo.load("toy"), lambda net, x: list(x), recipe=recipe, rounds=2, examples=10
    ... )
    >>> tuned.searched
    (10, 10)
    """
    checks.eval_mode(net, "net")
    rounds, examples = checks.count("rounds", rounds), checks.count("examples", examples)
    (x, y), _ = recipe.training_sets()
    if examples > len(x):
        raise ValueError(f"examples={examples} is too large: the recipe trains on {len(x)} inputs.")
    net = copy.deepcopy(net).requires_grad_(False)
    generator = Generator().manual_seed(recipe.seed)
    inputs, labels = x, y
    after, searched, found = [], [], []
    for done in range(rounds):
        rows = torch.randperm(len(x), generator=generator)[:examples]
        with torch.no_grad():
            right = torch.cat([net(x[part]).argmax(1) == y[part] for part in rows.split(500)])
        rows = rows[right]
        points = find(net, x[rows])
        if len(points) != len(rows):
            raise ValueError(f"find gave {len(points)} points for {len(rows)} inputs.")
        kept = [i for i, point in enumerate(points) if point is not None]
        made = [p.detach().to(x).reshape(1, *x.shape[1:]) for p in points if p is not None]
        inputs = torch.cat([inputs, *made])
        labels = torch.cat([labels, y[rows[kept]]])
        searched.append(len(rows))
        found.append(len(kept))
        net.requires_grad_(True)
        optimizer = recipe.optimizer(net)
        for number in range(1, recipe.epochs + 1):
            row = epoch(
                net, optimizer, inputs, labels, recipe=recipe, number=number, generator=generator
            )
            if progress:
                text = f"round {done + 1}: {found[-1]} examples, loss {row['loss']:.4f}"
                progress(done * recipe.epochs + number, rounds * recipe.epochs, text)
        net.requires_grad_(False)
        after.append(copy.deepcopy(net))
    return FineTuned(tuple(after), tuple(searched), tuple(found))
