"""The seeded steps of a training, seen from outside: what is drawn, the learning rate, checkpoints, the bar."""

from dataclasses import dataclass

import pytest
import torch

from semtransforms.core import steps as module
from semtransforms.core.steps import every_seconds, one_cycle, seeded_steps, step_decay


@dataclass(frozen=True)
class Plan:
    train_steps: int = 12
    batch_size: int = 4
    learning_rate: float = 0.5
    seed: int = 3


CPU = torch.device("cpu")


def walk(first=0, plan=Plan(), count=10, save=lambda done: None, share=lambda step: 1.0, upto=None):
    """Every step's number, rows, keys, learning rate and a draw of torch's own."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    taken = []
    with seeded_steps(plan, count, optimizer, rate_share=share, first=first, device=CPU, title="t", save=save,
                      progress=False) as (steps, bar):  # fmt: skip
        for step in steps:
            if step.number == upto:
                break
            rate = optimizer.param_groups[0]["lr"]
            taken.append((step.number, step.rows(CPU).tolist(), step.keys.tolist(), rate, torch.rand(()).item()))
        assert bar.total == plan.train_steps
    return taken


def test_a_training_that_goes_on_takes_the_steps_of_an_unbroken_one():
    """Rows, keys or torch's seed that count from the start of the process would change a resumed fit."""
    unbroken = walk()
    assert walk(first=7) == unbroken[7:]
    assert [number for number, *_ in unbroken] == list(range(12))
    assert len({draw for *_, draw in unbroken}) == 12
    assert walk(plan=Plan(seed=4))[0] != unbroken[0]


def test_a_row_has_another_key_in_another_step():
    """With the same key an image would get the same random view in every epoch."""
    keys = {}
    for _, rows, some, *_ in walk(count=8):  # no batch spans two epochs, where a row may come twice in a step
        for row, key in zip(rows, some, strict=True):
            keys.setdefault(row, []).append(key)
    assert all(len(set(of_a_row)) == len(of_a_row) > 1 for of_a_row in keys.values())


def test_the_caller_keeps_their_own_random_numbers():
    """A fit in the middle of a script must not change what the script draws after it, nor when it is left early."""
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    walk()
    walk(upto=2)
    assert torch.equal(torch.rand(3), wanted)
    torch.manual_seed(0)
    with pytest.raises(OSError, match="full"):
        walk(save=lambda done: (_ for _ in ()).throw(OSError("full")))
    assert torch.equal(torch.rand(3), wanted)


def test_a_checkpoint_is_offered_after_each_update_and_not_before():
    """One offered too early would say that an update is done whose weights it does not hold."""
    offered = []
    walk(first=3, save=offered.append, upto=6)
    assert offered == [4, 5, 6]


def test_the_bar_counts_the_updates_done():
    """A bar that starts at 0 after a resume, or runs ahead, tells a wrong remaining time."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    with seeded_steps(Plan(), 10, optimizer, rate_share=lambda step: 1.0, first=9, device=CPU, title="t",
                      save=lambda done: None, progress=True) as (steps, bar):  # fmt: skip
        assert [bar.n for _ in steps] == [9, 10, 11]
    assert bar.n == 12


def test_the_learning_rate_is_the_share_of_the_peak():
    """By hand: x0.1 every 5 updates from 0.5."""
    rates = [rate for *_, rate, _ in walk(share=lambda step: step_decay(step, 5, 0.1))]
    assert rates == pytest.approx([0.5] * 5 + [0.05] * 5 + [0.005] * 2)


def test_one_cycle_rises_over_a_fifth_and_falls_to_0():
    """By hand, of ten updates: up in 2, down in 8."""
    assert [one_cycle(step, 10) for step in range(10)] == pytest.approx(
        [1 / 2, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    )


def test_time_between_two_checkpoints(monkeypatch):
    """Written at every step, checkpoints of a large network take longer than the training."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    due, answers = every_seconds(30), []
    for now[0] in (110.0, 131.0, 132.0, 160.0, 162.0):
        answers.append(due(0))
    assert answers == [False, True, False, False, True]
