"""The notes' worked examples, runnable: each measures, draws and explains one point (`python -m jaxfood.lessons`).

A lesson is a module with two functions: `measure(full=False)` returns its numbers, `write(numbers, page)` writes its
page. Optimizers, schedules and losses are those of `jaxfood.optim`; nothing is written twice.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from jaxfood.errors import UserError

LESSONS = {
    "critical-points": "the notes' (1 - w1 w2)^2: gradient, Hessian, verdict, and the way out of the saddle",
    "minimum-ratio": "saddles at high loss, minima at low: the share of positive eigenvalues at small gradients",
    "linear-regression": "the notes' seven points: all of them, one or a few at each step of gradient descent",
    "batch-time": "seconds for an update and for an epoch, against the batch size",
    "momentum": "a local minimum, a plateau and a saddle, where momentum goes through",
    "adaptive": "very unequal curvature: one rate for all parameters, or one for each",
    "schedules": "the learning rate of every schedule, step by step",
    "cross-entropy": "classes as one-hot, softmax, and why not mean squared error",
    "batch-size": "small against large batches for equal work: losses, and how sharp the minimum is",
}


def run_lesson(name: str, out: str | Path, *, full: bool = False) -> dict[str, Any]:
    """Run a lesson: write its pictures, NAME.md and NAME.json into a folder, and return its numbers.

    Args:
        name: one of `LESSONS`.
        out: the folder, made where it is missing; files of the same names are replaced.
        full: the real size where the lesson trains, instead of 32 px, and the time that it needs.

    Raises:
        UserError: no such lesson, matplotlib is missing, or the folder is not local or cannot be written to.
    """
    if name not in LESSONS:
        raise UserError(f"no lesson {name!r}; there are: {', '.join(LESSONS)}")
    from jaxfood.report.page import Page

    page = Page(out, name, LESSONS[name])
    lesson = import_module(f"jaxfood.lessons.{name.replace('-', '_')}")
    numbers: dict[str, Any] = lesson.measure(full=full)
    lesson.write(numbers, page)
    page.save(numbers)
    return numbers
