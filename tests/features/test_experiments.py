"""The runner on a miniature: digits in three channels, networks of a few steps."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from robustlib import data
from robustlib.features import experiments, measure, studies
from robustlib.features.experiments import Experiment, Place
from robustlib.features.training import Schedule

SHORT = Schedule(epochs=2, batch=32, reach=0)
TABLE = {
    row.name: row
    for row in (
        Experiment("standard", SHORT),
        Experiment("robust", dataclasses.replace(SHORT, eps=0.2), attack=False),
        Experiment("robust_dataset", SHORT, 64, "robust", "robust", {"steps": 2}, attack=False),
        Experiment(
            "mislabeled_random", SHORT, 64, "random", "standard", {"steps": 2}, attack=False
        ),
        Experiment(
            "mislabeled_random_vgg",
            SHORT,
            64,
            "random",
            "standard",
            {"steps": 2},
            attack=False,
            architecture="slim_plain",
        ),
        Experiment("errors", SHORT, recipe="errors", teacher="standard", attack=False),
        Experiment("random_labels", SHORT, 64, labels="random", attack=False),
        Experiment("half", SHORT, 64, attack=False),
    )
}


def digits(split: str) -> tuple[Tensor, Tensor]:
    x, y = data.digits(split, n=200 if split == "test" else None)
    return x.repeat(1, 3, 1, 1), y


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    work = tmp_path_factory.mktemp("runs") / "work"
    work.mkdir()
    x, y = digits("train")
    train, held_out = (x[:200], y[:200]), (x[-50:], y[-50:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "ATTACK", {"steps": 3, "restarts": 1, "images": 50})
        yield Place(work, work.parent / "records", train, held_out, digits("test"))


@pytest.fixture(scope="module")
def records(place: Place) -> dict[str, dict]:
    return {name: experiments.run(row, 0, place, TABLE) for name, row in TABLE.items()}


def test_every_row_leaves_a_record_and_a_network(place: Place, records: dict[str, dict]) -> None:
    for name, row in TABLE.items():
        record = records[name]
        assert record["numbers"]["test"]["n"] == 200
        assert ("robust_0.5" in record["numbers"]) == row.attack
        assert [e["epoch"] for e in record["log"]] == [1, 2]
        assert {"held_out", "held_out_next"} <= set(record["log"][0])
        assert not experiments.network(place, row, 0).training
        assert not list(place.work.glob("*.state")), "the state of a finished run is removed"


def test_a_finished_row_is_returned(place: Place, records: dict[str, dict]) -> None:
    def fail(text: str) -> None:
        raise AssertionError("nothing is left to do")

    again = experiments.run(TABLE["robust_dataset"], 0, place, TABLE, progress=fail)
    assert again == records["robust_dataset"]


def test_an_interrupted_row_goes_on_to_the_same_network(place: Place, tmp_path: Path) -> None:
    def stop(text: str) -> None:
        if "epoch 1/" in text:
            raise KeyboardInterrupt

    (tmp_path / "work").mkdir()
    fresh = dataclasses.replace(place, work=tmp_path / "work", records=tmp_path / "records")
    with pytest.raises(KeyboardInterrupt):
        experiments.run(TABLE["standard"], 0, fresh, TABLE, progress=stop)
    assert not fresh.records.exists()
    experiments.run(TABLE["standard"], 0, fresh, TABLE)
    one, two = (experiments.network(p, TABLE["standard"], 0).state_dict() for p in (place, fresh))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_second_process_waits_for_the_first(place: Place, tmp_path: Path) -> None:
    own = dataclasses.replace(place, work=tmp_path / "work", records=tmp_path / "records")
    own.work.mkdir()
    waiting = threading.Thread(target=experiments.run, args=(TABLE["half"], 0, own, TABLE))
    with FileLock(own.work / ".half-0.lock"):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not own.records.exists()
    waiting.join()
    assert (own.records / "half-0.json").exists()


def test_other_settings_or_another_teacher_run_again(records: dict[str, dict]) -> None:
    student = TABLE["mislabeled_random"]
    before = experiments.settings_of(student, TABLE)
    longer = dataclasses.replace(TABLE["standard"], student=dataclasses.replace(SHORT, epochs=3))
    assert experiments.settings_of(student, {**TABLE, "standard": longer}) != before
    assert records["mislabeled_random"]["settings"] == before


def test_rows_on_the_same_set_share_it(place: Place, records: dict[str, dict]) -> None:
    assert not (place.work / "mislabeled_random_vgg-0").exists()
    one, two = records["mislabeled_random"], records["mislabeled_random_vgg"]
    assert one["data_set"] == two["data_set"]


def test_a_student_does_not_start_from_its_teacher() -> None:
    seeds = {experiments.seed_of(TABLE["mislabeled_random"], s) for s in range(3)}
    assert not seeds & {experiments.seed_of(TABLE["standard"], s) for s in range(3)}


def test_a_missing_teacher_is_named(place: Place, records: dict[str, dict]) -> None:
    with pytest.raises(FileNotFoundError, match="run 'standard' first"):
        experiments.run(TABLE["mislabeled_random"], 1, place, TABLE)


def test_the_errors_are_the_images_that_the_teacher_gets_wrong(
    place: Place, records: dict[str, dict]
) -> None:
    teacher = experiments.network(place, TABLE["standard"], 0)
    x, y = place.train
    with torch.no_grad():
        wrong = int((teacher(x).argmax(1) != y).sum())
    assert records["errors"]["data_set"]["images"] == wrong


def test_studies_leave_rows(place: Place, records: dict[str, dict]) -> None:
    for name, rows, sizes in (
        ("transfer", ["half", "robust"], {"images": 50}),
        ("leakage", ["mislabeled_random", "control"], {"sets": ["mislabeled_random"]}),
        (
            "norms",
            ["standard", "robust", "robust_dataset"],
            {"images": 20, "steps": 2, "radii": {"inf": [0.1]}},
        ),
    ):
        record = studies.run(name, 0, place, TABLE, **sizes)
        named = [row.get("target", row.get("set", row.get("network"))) for row in record["rows"]]
        assert named == rows
        assert studies.run(name, 0, place, TABLE, **sizes) == record


def test_a_study_of_another_size_is_measured_anew(place: Place, records: dict[str, dict]) -> None:
    small, large = (
        studies.run("gradient_frequencies", 0, place, TABLE, images=n)["rows"] for n in (5, 10)
    )
    assert [row["n"] for row in small + large] == [5, 5, 10, 10]


def test_features_that_tell_the_label_leak(place: Place, records: dict[str, dict]) -> None:
    """Fitted to true labels the robust features do well, to random ones they do not."""
    net = experiments.network(place, TABLE["standard"], 0)
    random = torch.randint(10, (200,), generator=torch.Generator().manual_seed(0))
    x, y = place.train
    true = measure.leakage(net, (x, y), place.test)
    assert true.value > 0.3 > measure.leakage(net, (x, random), place.test).high


def test_robust_accuracy_is_at_most_the_accuracy(place: Place, records: dict[str, dict]) -> None:
    net = experiments.network(place, TABLE["standard"], 0)
    x, y = (part[:100] for part in place.test)
    clean = measure.accuracy(net, x, y).value
    small, large = (
        measure.robust_accuracy(net, x, y, eps=eps, steps=5).value for eps in (0.1, 0.5)
    )
    assert large <= small <= clean


def test_a_network_s_adversarial_examples_transfer_to_itself(
    place: Place, records: dict[str, dict]
) -> None:
    net = experiments.network(place, TABLE["standard"], 0)
    x, y = (part[:100] for part in place.test)
    attacked = measure.adversarial(net, x, y, eps=0.5, steps=5)
    assert measure.transfer_rate(net, net, x, attacked, y).value == 1.0


def test_the_catalog_is_in_order() -> None:
    from robustlib.features.catalog import EXPERIMENTS

    seen: set[str] = set()
    for name, row in EXPERIMENTS.items():
        assert row.teacher is None or row.teacher in seen, f"{name} comes before its teacher"
        assert row.recipe is None or row.recipe in {*experiments.RECIPES, experiments.ERRORS}
        seen.add(name)
