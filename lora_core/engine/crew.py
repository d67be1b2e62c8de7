"""Training in several processes (torchrun, accelerate launch): each takes its share of every batch.

torch.distributed carries the sums. The same job gives the same steps with any number of processes, because noise and
timesteps are those of the whole batch. Only the first process writes; a process that ends in the middle ends all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

from lora_core.commands import Commands
from lora_core.errors import ConfigError, LoomError
from lora_core.events import Event

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """This process's number among `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The rows of a batch of `count` that this process computes; none where there are fewer than processes."""
        return slice(self.rank, count, self.size)

    def device(self, name: str) -> str:
        """The device of this process: its own card where the job leaves the choice."""
        if self.size == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"

    def summed(self, parameters: Iterable[nn.Parameter], loss: float) -> float:
        """Add up gradients (a missing one is zero) and losses of all processes. Raises LoomError."""
        if self.size == 1:
            return loss
        known = list(parameters)
        for parameter in known:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1).float() for p in known if p.grad is not None])
        flat = torch.cat([flat, torch.tensor([loss], device=flat.device)])
        with told():
            distributed.all_reduce(flat)
        for parameter, part in zip(known, flat[:-1].split([p.numel() for p in known])):
            parameter.grad = part.reshape(parameter.shape).to(parameter.dtype)
        return float(flat[-1])

    def heed(self, commands: Commands) -> None:
        """Pass the first process's stop on to all."""
        if self.size == 1:
            return
        flag = torch.tensor([int(commands.stop)], dtype=torch.int64)
        with told():
            distributed.broadcast(flag, src=0)
        if flag.item():
            commands.stop = True

    def dismiss(self) -> None:
        """In the first process: the others end too, as after a stop."""
        over = Commands()
        over.stop = True
        self.heed(over)

    def in_turn(self, work: Generator[Event, None, T]) -> Generator[Event, None, T]:
        """Run `work` in the first process, then in the others, which find its caches and say nothing."""
        if self.leads:
            result = yield from work
            self.wait()
            return result
        self.wait()
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value

    def wait(self) -> None:
        """Until all processes are here. Raises LoomError."""
        if self.size > 1:
            with told():
                distributed.barrier()


ALONE = Crew()


@contextlib.contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Crew]:
    """The crew that a launcher's RANK and WORLD_SIZE describe; alone without them. Raises ConfigError, LoomError."""
    size = environment.get("WORLD_SIZE", "1")
    if not size.isdigit() or int(size) < 2 or "RANK" not in environment:
        yield ALONE
        return
    if not distributed.is_available():
        raise ConfigError("This build of torch has no torch.distributed: train in one process.")
    with told():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Crew(distributed.get_rank(), distributed.get_world_size())
    finally:
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A fault of the connection as a sentence."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise LoomError(
            f"Another process of this training ended or cannot be reached ({str(error).splitlines()[0][:200]}). "
            "What was trained is kept; look at the other process's output and start all of them again."
        ) from error
