"""One fit in several processes: each computes some rows of every batch, and all join what came of them."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Share:
    """The rows of each batch that are this process's own.

    Noise and adversaries cost most and come row by row, so they are shared. What they made is joined, and the update
    of the weights, whose batch statistics need all rows, is made by every process: no gradient travels. Behind it all
    take the first one's weights.

    Args:
        rank: of this process, in 0..world - 1.
        world: processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether files and bars are this process's."""
        return self.rank == 0

    def own(self, rows: Tensor) -> Tensor:
        """Every world-th row of (B, ...), from the rank-th on."""
        return rows[self.rank :: self.world]

    def join(self, made: Tensor, count: int) -> Tensor:
        """All rows of a batch in their order.

        Args:
            made: (own rows, ...), what this process made.
            count: B, rows of the batch.

        Returns:
            (B, ...), the same in every process.
        """
        if self.world == 1:
            return made
        mine = made.new_zeros(-(-count // self.world), *made.shape[1:])
        mine[: len(made)] = made
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(parts, mine)
        return torch.stack(parts, 1).flatten(0, 1)[:count]

    def follow_first(self, network: nn.Module) -> None:
        """Bring a network to the state that it has in the first process.

        On CPUs it is the same everywhere. A GPU adds up in an order of its own each time, so that weights would drift
        apart, and with them the noises, which move by signs.
        """
        if self.world > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, 0)

    def check_agreed(self, what: str, mine: object, advice: str) -> None:
        """See that all processes have the same of something, before they wait for each other.

        Args:
            what: its name, for the message.
            mine: this process's.
            advice: what to do where they differ, a sentence.

        Raises:
            ValueError: they do not; raised in every process.
        """
        if self.world == 1:
            return
        all_of_them: list[object] = [None] * self.world
        distributed.all_gather_object(all_of_them, mine)
        if other := next((rank for rank, each in enumerate(all_of_them) if each != all_of_them[0]), None):
            raise ValueError(f"process {other} of {self.world} has another {what} than process 0. {advice}")


ALONE = Share()


def started() -> Share:
    """What torchrun says this process is, by the variables that it sets; alone where it started none."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    return Share(int(os.environ.get("RANK", 0)), world) if world > 1 else ALONE  # other launchers set RANK alone


def own_device(device: torch.device) -> torch.device:
    """The accelerator of this process, where several processes of a machine were given no number of one."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def shared(device: torch.device) -> Share:
    """Wait for all processes that torchrun has started, and share with them.

    Args:
        device: where this process computes; rows travel by NCCL between CUDA devices, by gloo between CPUs.

    Raises:
        ValueError: torchrun did not start this process.
    """
    if "WORLD_SIZE" not in os.environ:
        raise ValueError("distributed=True needs processes that torchrun started: torchrun --nproc-per-node 2 SCRIPT.")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # that of what is no tensor, which all would otherwise send from the first one
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)  # not before: processes that left do not find each other again for a second fit
    return Share(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
