"""The one training loop: AdamW, a learning rate by step, an EMA of the weights, checkpoints, a log.

All randomness of a step follows from the schedule's seed and the step's number, so a run that was interrupted and goes
on draws what an uninterrupted one would have drawn, and gives the same bits on the CPU.
"""

from __future__ import annotations

import contextlib
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from training.curves import draw_curve
from training.files import load_checkpoint, save_checkpoint
from training.settings import Schedule

SEED_STRIDE = 1_000_003
"""Between the seeds of two trainings: more than any has steps, and prime, so that streams do not meet."""

Network = TypeVar("Network", bound=nn.Module)

Loss = Callable[[int, torch.Generator], torch.Tensor]
"""From the step and its own generator (on the CPU) to the loss."""


@dataclass
class Run(Generic[Network]):
    """One training under way. `model` holds the weights, `average` their EMA, both by the names of `model`'s state."""

    name: str
    model: Network
    schedule: Schedule
    made_with: str
    folder: Path
    device: torch.device
    stop_at: float = math.inf
    """time.monotonic() after which it keeps a checkpoint and stops."""
    step: int = 0
    seconds: float = 0.0
    """Spent so far, in all runs."""

    def __post_init__(self) -> None:
        self.model.to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=self.schedule.learning_rate, weight_decay=self.schedule.weight_decay, betas=(0.9, 0.99), fused=True
        )
        self.average = {name: value.detach().clone().float() for name, value in self.model.named_parameters()}
        if state := load_checkpoint(self.checkpoint, self.made_with):
            self._restore(state)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.pt"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.csv"

    @property
    def finished(self) -> bool:
        return self.step >= self.schedule.steps

    def save(self) -> None:
        save_checkpoint(
            self.checkpoint,
            {
                "made_with": self.made_with, "step": self.step, "seconds": self.seconds, "model": self.model.state_dict(),
                "average": self.average, "optimiser": self.optimiser.state_dict(),
            },
        )  # fmt: skip

    def averaged(self) -> Network:
        """The model with the EMA's weights in it, for use; training cannot go on with it."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(self.average[name])
        return self.model.eval()

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.step, self.seconds = state["step"], state["seconds"]


def train(run: Run[Any], loss_of: Loss, say: Callable[[str], None]) -> bool:
    """Runs the steps that are left; whether all are done. A checkpoint, the log and its curve are on disk afterwards."""
    run.model.train()
    _drop_lines_after(run.log, run.step)
    start, before, kept = time.monotonic(), run.seconds, run.step
    while not run.finished and time.monotonic() < run.stop_at:
        loss = _advance_to_line(run, loss_of)
        run.seconds = before + time.monotonic() - start
        _add_line(run, loss)
        say(f"{run.name} {run.step:,}/{run.schedule.steps:,}  loss {loss:.4f}  {run.seconds:,.0f} s")
        if run.step - kept >= run.schedule.keep_every:
            run.save()
            kept = run.step
    run.save()
    draw_curve(run.log, run.log.with_suffix(".png"))
    return run.finished


def learning_rate(schedule: Schedule, step: int) -> float:
    """Of the step that begins at `step`: up from 0, flat, then along a cosine to 0; the same once more after a restart."""
    steps = schedule.restart_at or schedule.steps
    if 0 < schedule.restart_at <= step:
        step, steps = step - schedule.restart_at, schedule.steps - schedule.restart_at
    if step < schedule.warm_up:
        return schedule.learning_rate * (step + 1) / schedule.warm_up
    flat_end = max(schedule.warm_up, schedule.flat_share * steps)
    done = max(0.0, (step - flat_end) / max(1.0, steps - flat_end))
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def draws_of(schedule: Schedule, step: int) -> torch.Generator:
    """The generator of one step, on the CPU."""
    return torch.Generator().manual_seed(schedule.seed * SEED_STRIDE + step)


def precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 for what can bear it, on CUDA and on CPUs that have it in hardware (a fifth to a third faster there); else float32."""
    if device.type == "cuda" or torch.cpu._is_avx512_bf16_supported():
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def compiled(network: nn.Module, device: torch.device) -> Callable[..., Any]:
    """The network as compiled kernels on CUDA; as it is on a CPU, where compiling would need a C++ compiler."""
    return torch.compile(network) if device.type == "cuda" else network


def _advance_to_line(run: Run[Any], loss_of: Loss) -> float:
    """Steps up to the log's next line, between which nothing is kept; their mean loss. Raises ArithmeticError when it is not finite."""
    losses = [_advance(run, loss_of)]
    while run.step % run.schedule.log_every and not run.finished:
        losses.append(_advance(run, loss_of))
    loss = torch.stack(losses).mean().item()  # one wait for the device in many steps
    if not math.isfinite(loss):
        raise ArithmeticError(f"the loss of {run.name} is {loss} at step {run.step}; the checkpoint before it is kept")
    return loss


def _advance(run: Run[Any], loss_of: Loss) -> torch.Tensor:
    """One step; its loss, not yet waited for."""
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(run.schedule, run.step)
    with precision(run.device):
        loss = loss_of(run.step, draws_of(run.schedule, run.step))
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.schedule.clip)
    run.optimiser.step()
    run.step += 1
    decay = min(run.schedule.ema, (1 + run.step) / (10 + run.step))  # early on, an average of few steps
    with torch.no_grad():
        values = [value for _, value in run.model.named_parameters()]
        torch._foreach_lerp_(list(run.average.values()), [value.float() for value in values], 1 - decay)
    return loss.detach()


def _drop_lines_after(log: Path, step: int) -> None:
    """Lines of steps that are made again, since the checkpoint is older than they are."""
    if log.is_file():
        head, *lines = log.read_text().splitlines()
        log.write_text("\n".join([head, *(line for line in lines if int(line.split(",")[0]) <= step)]) + "\n")


def _add_line(run: Run[Any], loss: float) -> None:
    run.log.parent.mkdir(parents=True, exist_ok=True)
    new = not run.log.is_file()
    with run.log.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(["step", "loss", "learning_rate", "seconds"])
        writer.writerow([run.step, f"{loss:.6f}", f"{learning_rate(run.schedule, run.step - 1):.3e}", f"{run.seconds:.1f}"])
