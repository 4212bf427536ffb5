"""The order of the work: every image once, whatever ends first and whoever dies."""

import numpy as np
import pytest
import torch

from robustlib.verification.plan import Image, Open, Plan
from robustlib.verification.result import Verdict

STAGES = ("bounds", "attack", "exact")
X = torch.zeros(1)


def plan(n, stages=STAGES):
    made = Plan(n, stages, lambda i, opened: Image(i, X, 0, opened))
    made.add(range(n))
    return made


def verdict(seconds=1.0):
    return Verdict("robust", "crown", 1.0, np.nan, None, seconds)


def work_off(made, rng, workers, answer, dies=lambda task: False):
    """Give out tasks to this many workers, end them in random order; verdicts and tasks."""
    running, verdicts, tasks = [], [], []
    while True:
        while len(running) < workers and (task := made.next_task()) is not None:
            running.append(task)
            tasks.append(task)
        if not running:
            return verdicts, tasks
        task = running.pop(int(rng.integers(len(running))))
        answers = None if dies(task) else [answer(task.stage, image) for image in task.images]
        for image, found in made.finished(task, answers):
            made.decided("died" if found is None else found.verdict, task.stage)
            verdicts.append((image.index, found))


def by_index(stage, image):
    """Every third image is decided in each stage; all that are left in the last."""
    if stage == "exact" or (image.index + STAGES.index(stage)) % 3 == 0:
        return verdict()
    return Open(np.array([-float(image.index)]), 1.0)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_image_gets_one_verdict_and_tasks_do_not_depend_on_the_workers(workers):
    alone = {
        (task.stage, tuple(image.index for image in task.images))
        for task in work_off(plan(200), np.random.default_rng(0), 1, by_index)[1]
    }
    for seed in range(10):
        made = plan(200)
        verdicts, tasks = work_off(made, np.random.default_rng(seed), workers, by_index)
        assert sorted(index for index, _ in verdicts) == list(range(200))
        assert {(t.stage, tuple(image.index for image in t.images)) for t in tasks} == alone
        event = made.event()
        assert (event["done"], event["total"], event["eta"]) == (200, 200, 0.0)
        assert event["left"] == dict.fromkeys(STAGES, 0)


def test_the_hardest_images_are_begun_first():
    tasks = work_off(plan(50), np.random.default_rng(0), 1, by_index)[1]
    exact = [task.images[0].index for task in tasks if task.stage == "exact"]
    assert exact == sorted(exact, reverse=True)


def test_inputs_are_taken_out_only_for_tasks_that_run():
    alive = []

    def image(i, opened):
        alive.append(i)
        return Image(i, X, 0, opened)

    made, rng, most = Plan(1000, STAGES, image), np.random.default_rng(0), 0
    made.add(range(1000))

    def answer(stage, image):
        nonlocal most
        most = max(most, len(alive))
        alive.remove(image.index)
        return by_index(stage, image)

    work_off(made, rng, 2, answer)
    assert most <= 2 * 32
    assert not alive


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_that_kills_its_worker_twice_is_given_up_and_takes_no_other_with_it(stage):
    def dies(task):
        return task.stage == stage and 13 in [image.index for image in task.images]

    verdicts, tasks = work_off(plan(40), np.random.default_rng(0), 3, by_index, dies)
    assert sorted(index for index, _ in verdicts) == list(range(40))
    assert [i for i, found in verdicts if found is None] == [13]
    assert sum(dies(task) for task in tasks) == 2


def test_a_worker_that_dies_once_changes_no_verdict():
    rng = np.random.default_rng(0)
    killed = set()

    def dies(task):
        first = id(task) not in killed and not task.retry and rng.random() < 0.3
        killed.add(id(task))
        return first

    made = plan(100)
    verdicts, _ = work_off(made, rng, 4, by_index, dies)
    assert sorted(index for index, _ in verdicts) == list(range(100))
    assert made.verdicts == {"robust": 100}


def test_the_time_left_is_said_only_where_it_is_known():
    made = plan(16)
    assert made.eta() is None
    first, second = made.next_task(), made.next_task()
    list(made.finished(first, [verdict() for _ in first.images]))
    assert made.eta() > 0
    list(made.finished(second, [Open(np.array([-1.0]), 1.0) for _ in second.images]))
    assert made.eta() is None, "no image has been attacked yet"
    attack = made.next_task()
    list(made.finished(attack, [verdict(2.0) for _ in attack.images]))
    assert made.eta() == 0.0
