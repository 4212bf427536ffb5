"""Verdicts against brute force, on thousands of small random networks.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/fuzz_verify.py --networks 2000

asks every network one question in one norm, in several of the ways that the library has, and
compares what comes out with the smallest margin over all linear pieces of the torch module. Every
witness is evaluated again with fractions and by the module in its own type and in float64, every
robust question attacked with ten times the budget of ``verify``. Prints counts, and each
disagreement with the number of its network: ``--first N --networks 1`` repeats it. ``--seconds``
ends it early; the last line says with which ``--first`` to go on. Exit status 1 if anything
disagreed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import robustlib as rl
from robustlib.attacks import pgd
from robustlib.encoders.maxima import without_max_pooling
from robustlib.network import Affine, MaxPool, Network, from_torch, margin_rows
from robustlib.verification.blur import blur, verify_blur
from robustlib.verification.paper import OBJECTIVES, PaperSettings, decide_by_mip
from robustlib.verification.question import Question
from robustlib.verification.radius import METHODS, certified_radius
from robustlib.verification.search import exact_search
from tests.brute_force import (
    folded_network,
    random_network,
    smallest_blur_margins,
    smallest_distortion_to,
    smallest_module_margins_in_ball,
)

ORACLE = {"inf": 1e-7, "1": 1e-7, "2": 1e-6}  # how far brute force may be off: its programs' engine
CLOSE = 1e-6  # margins nearer to 0 may be answered either way, but not both ways
LIMIT = 10.0  # seconds
BOUNDS = (0.0, 1.0)
SHIFTS = (None, None, 0.02, -0.02, 0.02, -0.02, 1e-3, -1e-3, 1e-4, -1e-4, 1e-5, -1e-5, 0.0)
FOUND = ("adversarial", "misclassified")
branching = importlib.import_module("robustlib.verification.branch")
# Bounds so weak that the trees grow, and hidden units tightened from the first branch on.
WEAK = dict(ROOT_STEPS=1, STEPS=2, FEW_STEPS=2, PLANE_STEPS=2, REFIT_STEPS=1, DESCENT=1)


def padded_network(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Max-pooling with overlapping, padded windows; also before the first layer, and twice."""
    generator = torch.Generator().manual_seed(seed)
    kinds: list[tuple[list[nn.Module], tuple[int, ...]]] = [
        ([nn.Conv2d(1, 1, 2), nn.MaxPool2d(2, 2, padding=1), nn.Flatten(), nn.Linear(4, 2)],
         (1, 3, 3)),
        ([nn.MaxPool2d(2, 2, padding=1), nn.Flatten(), nn.Linear(4, 2), nn.ReLU(),
          nn.Linear(2, 3)], (1, 2, 2)),
        ([nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d((1, 2), 1, padding=(0, 1)), nn.Flatten(),
          nn.Linear(6, 2)], (1, 2, 3)),
        ([nn.Conv2d(1, 1, 1), nn.MaxPool2d((1, 2), 1), nn.ReLU(), nn.MaxPool2d((2, 1), 1),
          nn.Flatten(), nn.Linear(1, 3)], (1, 2, 2)),
        ([nn.Flatten(), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)], (1, 2, 2)),
    ]  # fmt: skip
    layers, shape = kinds[seed % len(kinds)]
    module = nn.Sequential(*layers)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(False)
    return module.eval(), shape


KINDS = (random_network, folded_network, padded_network)


@dataclass
class Case:
    """A question and its truth: the smallest margin of each other label."""

    seed: int
    module: nn.Sequential
    x: Tensor
    label: int
    eps: float
    norm: str
    rng: np.random.Generator
    truth: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @cached_property
    def network(self) -> Network:
        return from_torch(self.module, tuple(self.x.shape))

    def question(self) -> Question:
        return Question(self.module, self.network, self.x, self.label, self.eps, BOUNDS, self.norm)


def draw(seed: int) -> Case:
    """A network, an input and a radius; the last bias is moved to bring the margin near 0."""
    rng = np.random.default_rng(seed)
    module, shape = KINDS[seed % 3](seed // 3)
    coarse = rng.random() < 0.15  # many exact ties, and bounds that are exactly 0
    if coarse:
        for parameter in module.parameters():
            parameter.data = torch.round(2 * parameter.data) / 2
    if rng.random() < 0.5:
        module = module.double()
    x = rng.random(shape)
    x = np.where(rng.random(shape) < 0.2, np.round(x), x)  # some pixels at the ends of the box
    x = np.round(4 * x) / 4 if coarse else x
    dtype = next(module.parameters()).dtype
    point = torch.from_numpy(x).to(dtype).clamp(*BOUNDS)
    norm = ("inf", "1", "2")[int(rng.integers(3))]
    scale = {"inf": 1.0, "1": 0.5 * x.size, "2": x.size**0.5}[norm]
    eps = float(scale * rng.uniform(0.02, 0.5))
    if coarse:
        eps = 0.25 if norm == "inf" else 0.5
    special = rng.random()
    eps = 0.0 if special < 0.05 else eps * 0.01 if special < 0.1 else eps
    label = int(module(point[None])[0].argmax())
    case = Case(seed, module, point, label, eps, norm, rng)
    exact = point.double().numpy()
    case.truth = smallest_module_margins_in_ball(
        copy.deepcopy(module), exact, label, eps, norm, BOUNDS
    )
    shift = SHIFTS[int(rng.integers(len(SHIFTS)))]
    if shift is not None:
        move(case, shift)
    return case


def move(case: Case, goal: float) -> None:
    """Make the smallest margin about ``goal``."""
    bias = case.module[-1].bias
    before = float(bias[case.label])
    bias[case.label] += goal - case.truth.min()
    case.truth = case.truth + (float(bias[case.label]) - before)


def exact_logits(network: Network, x: np.ndarray) -> list[Fraction]:
    """The logits at x in fractions."""
    values = [Fraction(v) for v in x.tolist()]
    for step in network.steps:
        if isinstance(step, Affine):
            dense = step.weight if isinstance(step.weight, np.ndarray) else step.weight.toarray()
            values = [
                sum((Fraction(w) * v for w, v in zip(row, values, strict=True) if w), Fraction(b))
                for row, b in zip(dense.tolist(), step.bias.tolist(), strict=True)
            ]
        elif isinstance(step, MaxPool):
            values = [max(values[i] for i in window if i >= 0) for window in step.windows]
        else:
            values = [max(v, Fraction(0)) for v in values]
    return values


def wins(network: Network, x: np.ndarray, label: int, targets: list[int]) -> bool:
    """Whether one of ``targets`` has the largest logit, in real arithmetic, with no tie."""
    logits = exact_logits(network, x)
    others = [v for j, v in enumerate(logits) if j not in targets]
    return max(logits[j] for j in targets) > max(others)


def inside(case: Case, x: np.ndarray, eps: float) -> bool:
    """Whether x lies in the ball and the box, exactly."""
    gaps = [
        abs(Fraction(a) - Fraction(b))
        for a, b in zip(x.tolist(), case.x.double().reshape(-1).tolist(), strict=True)
    ]
    size = {"inf": max(gaps), "1": sum(gaps), "2": sum(g * g for g in gaps)}[case.norm]
    reach = Fraction(eps) ** (2 if case.norm == "2" else 1)
    return bool(size <= reach and x.min() >= BOUNDS[0] and x.max() <= BOUNDS[1])


def wrong_witness(case: Case, witness: Tensor, eps: float, targets: list[int] | None = None) -> str:
    """What is wrong with a witness, or nothing."""
    flat = witness.double().reshape(-1).numpy()
    wanted = targets or [j for j in range(case.network.classes) if j != case.label]
    if witness.dtype != case.x.dtype or witness.shape != case.x.shape:
        return "has another dtype or shape"
    if not inside(case, flat, eps):
        return "lies outside the ball or the box"
    if not wins(case.network, flat, case.label, wanted):
        return "does not win in real arithmetic"
    double = copy.deepcopy(case.module).double()
    for module, point in ((case.module, witness), (double, witness.double())):
        if int(module(point[None])[0].argmax()) not in wanted:
            return f"does not win in {point.dtype}"
    return ""


@dataclass
class Said:
    """What one way of asking answered."""

    verdict: str
    lower: float
    witness: Tensor | None = None


def of_rows(lower: np.ndarray, witness: object) -> Said:
    if witness is not None:
        return Said("adversarial", float(lower.min()), witness.point)  # type: ignore[attr-defined]
    return Said("robust" if lower.min() > 0 else "undecided", float(lower.min()))


def by_verify(case: Case, **settings: object) -> Said:
    r = rl.verify(
        case.module, case.x[None], torch.tensor([case.label]), eps=case.eps, norm=case.norm,
        time_limit=LIMIT, workers=1, **settings,
    ).results[0]  # fmt: skip
    return Said(r.verdict, r.lower, r.witness)


def by_branch(case: Case, **constants: int) -> Said:
    """Branch and bound on all rows, with no attack before it."""
    q = case.question()
    if any(isinstance(step, MaxPool) for step in q.network.steps):
        plain = without_max_pooling(q.network, q.box)
        q = Question(q.module, plain, q.x, q.label, q.eps, q.bounds, q.norm)
        q.__dict__["check"] = case.question().check
    with mock.patch.multiple(branching, **({"EARLY": branching.EARLY} | constants)):
        found = branching.branch(q, margin_rows(q.label, q.network.classes), time_limit=LIMIT)
    return of_rows(found.lower, found.witness)


def by_search(case: Case, solver: str) -> Said:
    """The exact stages, with no bounds or attack before them."""
    q = case.question()
    nothing = np.full(len(q.targets), -np.inf)
    found = exact_search(q, nothing, solver=solver, time_limit=LIMIT)
    return of_rows(found.lower, found.witness)


def by_paper(case: Case) -> Said:
    """The paper's method with switches at random."""
    rng = case.rng
    on = [bool(rng.random() < 0.6) for _ in range(4)]
    settings = PaperSettings(
        str(rng.choice(["interval", "lp", "mip"])), *on, str(rng.choice(OBJECTIVES))
    )
    found = decide_by_mip(case.question(), time_limit=LIMIT, settings=settings)
    return Said(found.verdict, found.lower, found.witness)


# Of each group one way is drawn, or with --all every one is taken.
WAYS: list[dict[str, Callable[[Case], Said]]] = [
    {"cascade": by_verify},
    {
        "mip highs": lambda case: by_verify(case, method="mip"),
        "mip scip": lambda case: by_verify(case, method="mip", solver="scip"),
        "mip switches": by_paper,
    },
    {"search": lambda case: by_search(case, "highs"), "branch": by_branch},
    {
        "branch weak": lambda case: by_branch(case, EARLY=10**6, **WEAK),
        "branch tightened": lambda case: by_branch(case, EARLY=1, FEW_UNITS=0, **WEAK),
        "branch programs": lambda case: by_branch(case, EARLY=1, FEW_UNITS=100, **WEAK),
    },
]


class Fuzz:
    """Counts and disagreements."""

    def __init__(self, every_way: bool = False) -> None:
        self.every_way = every_way
        self.networks = 0
        self.counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.attacks = self.witnesses = 0
        self.wrong: list[str] = []
        self.seconds: Counter[str] = Counter()

    def complain(self, case: Case, way: str, what: str) -> None:
        line = f"DISAGREEMENT {case.seed} {case.norm} {way}: {what}"
        self.wrong.append(line)
        print(line, flush=True)

    def examine(self, seed: int) -> None:
        clock = time.process_time()
        case = draw(seed)
        self.networks += 1
        self.seconds["brute force"] += time.process_time() - clock
        truth = float(case.truth.min())
        verdicts = {}
        ways: dict[str, Callable[[Case], Said]] = {}
        for group in WAYS:
            drawn = str(case.rng.choice(list(group)))
            ways |= group if self.every_way else {drawn: group[drawn]}
        for way, ask in ways.items():
            clock = time.process_time()
            said = ask(case)
            self.seconds[way] += time.process_time() - clock
            verdicts[way] = said.verdict
            self.counts[way, case.norm][said.verdict] += 1
            if said.verdict == "robust" and (truth < -CLOSE or not said.lower > 0):
                self.complain(case, way, f"robust with {said.lower:g}, but the margin is {truth:g}")
            if said.verdict in FOUND and truth > CLOSE:
                self.complain(case, way, f"{said.verdict}, but the margin is {truth:g}")
            if said.lower > truth + ORACLE[case.norm] * (1.0 + abs(truth)):
                self.complain(case, way, f"the bound {said.lower:g} is above the margin {truth:g}")
            self.check_witness(case, way, said.witness, case.eps)
        if "robust" in verdicts.values():
            if any(v in FOUND for v in verdicts.values()):
                self.complain(case, "all", f"contradiction: {verdicts}")
            clock = time.process_time()
            self.attack(case)
            self.seconds["attack"] += time.process_time() - clock
        clock = time.process_time()
        if seed % 4 == 0:
            self.radius(case, truth)
        if seed % 12 == 0:
            self.distortion(case)
        if seed % 4 == 1 and case.x.ndim == 3:
            self.blur(case)
        self.seconds["radius, distortion, blur"] += time.process_time() - clock

    def check_witness(
        self, case: Case, way: str, witness: Tensor | None, eps: float,
        targets: list[int] | None = None,
    ) -> None:  # fmt: skip
        if witness is None:
            return
        self.witnesses += 1
        what = wrong_witness(case, witness, eps, targets)
        if what:
            self.complain(case, way, f"the witness {what}")

    def attack(self, case: Case) -> None:
        """A point with another label refutes a proof, however small its margin is."""
        self.attacks += 1
        targets = [j for j in range(case.network.classes) if j != case.label]
        toward = torch.tensor(targets).repeat_interleave(100)
        for wanted, starts, steps in ((None, 20, 50), (toward, len(toward), 200)):
            x = case.x[None].expand(starts, *case.x.shape)
            points = pgd(
                case.module, x, torch.full((starts,), case.label), eps=case.eps, norm=case.norm,
                steps=steps, loss="margin", decay=True, bounds=BOUNDS, early_stop=False,
                step_size=case.eps / 4 or None, targets=wanted,
                generator=torch.Generator().manual_seed(case.seed),
            )  # fmt: skip
            flat = points.double().reshape(starts, -1).numpy()
            logits = case.network.forward(flat)
            margins = (logits @ margin_rows(case.label, case.network.classes).T).min(1)
            lowest = flat[margins.argmin()]
            if margins.min() < 1e-9 and wins(case.network, lowest, case.label, targets):
                self.complain(case, "attack", f"a robust question has the witness {lowest}")
                return

    def radius(self, case: Case, truth: float) -> None:
        method = str(case.rng.choice(METHODS))
        found = certified_radius(
            case.module, case.x, case.label, norm=case.norm, method=method, tolerance=0.02
        )
        way = f"radius {method}"
        reaches = found > 0 and found >= case.eps  # 0: nothing is proved
        self.counts[way, case.norm]["reaches eps" if reaches else "below"] += 1
        if reaches and truth < -CLOSE:
            self.complain(case, way, f"{found:g} ≥ eps = {case.eps:g}, margin {truth:g}")

    def distortion(self, case: Case) -> None:
        """Of a network with few patterns; toward all labels, or some."""
        if case.seed % 3:
            return
        network, center = case.network, case.x.double().reshape(-1).numpy()
        others = [j for j in range(network.classes) if j != case.label]
        wanted = others if case.rng.random() < 0.5 else [int(case.rng.choice(others))]
        near, far = (  # a tie within what brute force may be off: either may be the truth
            smallest_distortion_to(network, center, wanted, case.norm, BOUNDS, lead=lead)
            for lead in (-CLOSE, CLOSE)
        )
        d = rl.min_distortion(
            case.module, case.x, case.label, norm=case.norm, targets=wanted, time_limit=LIMIT
        )
        kind = "some" if len(wanted) < len(others) else "all"
        way = f"distortion {kind}"
        self.counts[way, case.norm]["finished" if d.finished else "unfinished"] += 1
        if d.lower > far + 1e-6 or d.distance < near - 1e-6:
            self.complain(case, way, f"[{d.lower:g}, {d.distance:g}], but it is {near:g} … {far:g}")
        if d.finished and np.isfinite(far) and d.distance > far + 1e-2:
            self.complain(case, way, f"finished with {d.distance:g}, but it is {near:g} … {far:g}")
        self.check_witness(case, way, d.witness, d.distance, wanted)

    def blur(self, case: Case) -> None:
        case = replace(case, module=copy.deepcopy(case.module))
        image = case.x.double().numpy()
        case.truth = smallest_blur_margins(copy.deepcopy(case.module), image, case.label, 3)
        if case.rng.random() < 0.7:
            move(case, float(case.rng.choice([0.05, -0.05, 1e-3, -1e-3])))
        truth = float(case.truth.min())
        r = verify_blur(
            case.module, case.x[None], torch.tensor([case.label]), size=3, time_limit=LIMIT
        ).results[0]
        self.counts["blur", "simplex"][r.verdict] += 1
        if truth < -CLOSE if r.verdict == "robust" else r.verdict in FOUND and truth > CLOSE:
            self.complain(case, "blur", f"{r.verdict}, but the margin is {truth:g}")
        if r.lower > truth + 1e-7 * (1.0 + abs(truth)):
            self.complain(case, "blur", f"the bound {r.lower:g} is above the margin {truth:g}")
        if r.witness is not None:
            self.witnesses += 1
            kernel = r.witness.double()
            blurred = blur(torch.from_numpy(image)[None], kernel)[0]
            logits = case.network.forward(blurred.reshape(1, -1).numpy())[0]
            fair = bool((kernel >= 0).all()) and sum(map(Fraction, kernel.flatten().tolist())) == 1
            if not fair or logits.argmax() == case.label:
                self.complain(case, "blur", "the witness is none")

    def summary(self) -> str:
        lines = [f"{self.networks} networks, {self.witnesses} witnesses, {self.attacks} attacked"]
        for way, norm in sorted(self.counts):
            counts = self.counts[way, norm]
            lines.append(f"  {way:18} {norm:8} {counts.total():5}  {dict(sorted(counts.items()))}")
        spent = {name: round(seconds, 1) for name, seconds in self.seconds.items()}
        lines.append(f"  CPU seconds {sum(spent.values()):.0f}: {spent}")
        lines.append(f"  {len(self.wrong)} disagreements")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--every", type=int, default=100, help="networks between two summaries")
    parser.add_argument("--all", action="store_true", help="ask in every way, not in some")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fuzz, start, seed = Fuzz(arguments.all), time.monotonic(), arguments.first
    end = arguments.first + arguments.networks
    while seed < end and time.monotonic() - start < arguments.seconds:
        try:
            fuzz.examine(seed)
        except Exception as error:  # goes on: one network's error must not hide the others
            fuzz.wrong.append(f"ERROR {seed}: {type(error).__name__}: {error}")
            print(fuzz.wrong[-1], flush=True)
        seed += 1
        if (seed - arguments.first) % arguments.every == 0:
            print(f"{time.monotonic() - start:.0f} s, {fuzz.summary()}", flush=True)
    print(f"{fuzz.summary()}\n--first {seed}")
    return bool(fuzz.wrong)


if __name__ == "__main__":
    sys.exit(main())
