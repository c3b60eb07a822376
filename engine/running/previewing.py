"""Previewing: which images under way are shown after a tick, by which previewer, and who pays for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from PIL import Image

from engine.errors import EngineError
from engine.running.device import Device, Key
from engine.running.preview_budget import SHARE, Account, PreviewBudget, PreviewBudgets
from engine.running.task import Task

log = logging.getLogger(__name__)

MISSED = 2
"""Previews that an image went without before its visitor is told: a first step may just have been a quick one."""


class Previews:
    """Chooses and takes the previews of a kind of device ("cpu" or "cuda"). `calling` stands around what may hang."""

    def __init__(self, kind: str, calling: Callable[[], AbstractContextManager[None]]):
        self._budgets = PreviewBudgets(SHARE.get(kind, SHARE["cpu"]))
        self._calling = calling

    def worked(self, seconds: float, tasks: Sequence[Task], present: set[str]) -> None:
        """A tick advanced these images; `present` are the owners that have one under way or waiting."""
        self._budgets.worked(seconds, [task.account for task in tasks], present)

    def due(self, device: Device, tasks: Sequence[Task], alone: bool) -> Mapping[Key, str]:
        """The previewer of each of these images, all just advanced, that is shown now, as far as its owner's budget goes.

        `alone`: nobody but one owner is there.
        """
        try:
            return self._choose(device, tasks, alone)
        except Exception:  # watching must never end an image
            log.exception("no previews could be chosen")
            return {}

    def look(self, device: Device, task: Task, method: str | None) -> tuple[Image.Image | None, str]:
        """A picture of an image under way, and how it was made."""
        if method is None:
            return None, ""
        try:
            with self._calling():
                image = device.preview(task.key, method)
        except EngineError:  # nothing to see of this step
            return None, ""
        except Exception:  # watching must never end an image
            log.exception("a preview failed")
            return None, ""
        finally:
            self._budgets[task.account].spent(device.preview_seconds)
        task.looked = task.step
        if method not in task.shown:
            task.shown.append(method)
        return image, method

    def _choose(self, device: Device, tasks: Sequence[Task], alone: bool) -> dict[Key, str]:
        due: dict[Account, list[Task]] = {}
        for task in tasks:
            if task.order.previews.due(task.step):
                due.setdefault(task.account, []).append(task)
        methods: dict[Key, str] = {}
        for account, some in due.items():
            costs = device.preview_costs(some[0].key)  # images of one tick are of one size
            if account.named:
                methods |= self._choose_named(self._budgets[account], costs, some, alone)
            else:
                methods |= self._choose_auto(self._budgets[account], costs, some)
        return methods

    def _choose_auto(self, budget: PreviewBudget, costs: Mapping[str, float], tasks: Sequence[Task]) -> dict[Key, str]:
        """One previewer for all of an owner's images; those who have seen nothing yet need not wait with those who have."""
        new = [task for task in tasks if not task.shown]
        for some, seen in ((tasks, {name for task in tasks for name in task.shown}), (new, ())):
            if some and (method := budget.choose(costs, len(some), seen)):
                return dict.fromkeys((task.key for task in some), method)
        return {}

    def _choose_named(
        self, budget: PreviewBudget, costs: Mapping[str, float], tasks: Sequence[Task], alone: bool
    ) -> dict[Key, str]:  # fmt: skip
        """The previewers asked for by name, of the images first that went without for the most steps."""
        tasks = sorted(tasks, key=lambda task: task.looked - task.step)
        asked = [task.order.previews.method for task in tasks]
        methods = [method if method in costs else "linear" for method in asked]
        paid = budget.afford([costs[method] for method in methods])
        for task, wanted, method in zip(tasks, asked, methods, strict=True):
            if wanted != method:
                task.notice(f"This model has no “{wanted}” previews here: “{method}” ones are shown.")
        for task, method in list(zip(tasks, methods, strict=True))[paid:]:
            task.missed += 1
            if task.missed == MISSED:
                why = "take longer than the steps themselves, so they" if alone else "would hold up others, so for now they"
                task.notice(f"“{method}” previews {why} are shown less often than you asked: “auto” shows what there is time for.")
        return {task.key: method for task, method in zip(tasks[:paid], methods[:paid], strict=True)}
