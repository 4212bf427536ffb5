"""The line of progress says what is known, and no more."""

from __future__ import annotations

import pytest

from robustlib.reproduce import library_commands


def test_before_the_first_epoch_the_time_left_is_not_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(library_commands.time, "monotonic", lambda: now[0])
    show = library_commands.bar("epochs")
    for done, text in enumerate(["7 of 9 images searched", "loss 0.5"]):
        now[0] += 60.0
        show(done, 3, text)
    assert capsys.readouterr().err.splitlines() == [
        "0/3 epochs: 7 of 9 images searched; 1:00 elapsed, time left not known",
        "1/3 epochs: loss 0.5; 2:00 elapsed, about 4:00 left",
    ]
