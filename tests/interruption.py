"""A progress callback that ends a training run behind an epoch, as if it had been killed there."""

from __future__ import annotations

from robustlib.training import Progress


class Stop(Exception):
    pass


def stop_at(epoch: int) -> Progress:
    def progress(done: int, total: int, text: str) -> None:
        if done == epoch:
            raise Stop

    return progress
