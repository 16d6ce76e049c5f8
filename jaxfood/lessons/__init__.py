# ruff: noqa: RUF001 (Chinese has its own comma, colon and brackets)
"""The notes' worked examples, runnable: each measures, draws and explains one point (`python -m jaxfood.lessons`).

A lesson is a module with two functions: `measure(full=False)`, with `images=None` where it takes photographs, returns
its numbers, `write(numbers, page)` writes its page. Numbers that were known before are among them as `claims`
(`jaxfood.lessons.claims`). Optimizers, schedules and losses are those of `jaxfood.optim`; nothing is written twice.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxfood.errors import UserError


@dataclass(frozen=True)
class Lesson:
    """What the list says of a lesson.

    Attributes:
        summary: in one line.
        summary_zh: the same in Chinese.
        takes_images: whether it trains, and does so on the photographs of `--images` too.
    """

    summary: str
    summary_zh: str
    takes_images: bool = False


LESSONS = {
    "critical-points": Lesson(
        "the notes' (1 - w1 w2)^2: gradient, Hessian, verdict, and the way out of the saddle",
        "讲义里的 (1 - w1 w2)^2：梯度、Hessian 矩阵、判断，以及怎样离开鞍点",
    ),
    "minimum-ratio": Lesson(
        "saddles at high loss, minima at low: the share of positive eigenvalues at small gradients",
        "损失高处是鞍点，低处是最小值：梯度很小的点上，正特征值所占的比例",
    ),
    "index-and-loss": Lesson(
        "the higher a critical point, the more ways lead down: the exact law, the measured one, its exponent",
        "临界点越高，往下的路越多：精确的规律、测到的规律，以及它的指数",
    ),
    "linear-regression": Lesson(
        "the notes' seven points: all of them, one or a few at each step of gradient descent",
        "讲义里的七个样本：梯度下降每一步用全部、一个或几个",
    ),
    "batch-time": Lesson(
        "seconds for an update and for an epoch, against the batch size",
        "更新一次和跑完一个 epoch 各要多少秒，随批量大小怎样变化",
    ),
    "momentum": Lesson(
        "a local minimum, a plateau and a saddle, where momentum goes through",
        "局部最小值、高原和鞍点：动量能冲过去的地方",
    ),
    "adaptive": Lesson(
        "very unequal curvature: one rate for all parameters, or one for each",
        "各方向曲率悬殊：所有参数共用一个学习率，还是各有各的",
    ),
    "schedules": Lesson("the learning rate of every schedule, step by step", "每种学习率调度一步一步的变化"),
    "cross-entropy": Lesson(
        "classes as one-hot, softmax, and why not mean squared error",
        "独热编码、softmax，以及为什么不用均方误差",
    ),
    "batch-size": Lesson(
        "small against large batches: losses for equal work, how sharp the ends are, how many seeds tell",
        "小批量对大批量：工作量相同时的损失、终点有多尖锐，以及要多少个种子才看得出来",
        takes_images=True,
    ),
    "edge-of-stability": Lesson(
        "sharpness rises to what the learning rate just bears, and stays: one number for each optimizer",
        "尖锐度一直升到学习率刚好承受得住的地方，然后停在那里：每种优化器一个已知的数",
        takes_images=True,
    ),
    "warm-up": Lesson(
        "the largest stable rate with and without warm-up, and the sharpness that warm-up takes away",
        "有预热和没有预热时最大的稳定学习率，以及预热带走的尖锐度",
        takes_images=True,
    ),
    "outliers": Lesson(
        "as many outlying eigenvalues as classes less one, and the gradient among them",
        "离群的特征值恰好比类别数少一个，梯度就在它们那里",
        takes_images=True,
    ),
    "mode-connectivity": Lesson(
        "two seeds: the wall between them on the straight line, the valley along a curve",
        "两个随机种子：直线上隔着一堵墙，沿着一条曲线却有山谷相通",
        takes_images=True,
    ),
    "residual": Lesson(
        "the homework's residual sample network, whose first steps go wild, and the same skips scaled well",
        "作业里的残差示例网络，开头几步就失控；同样的残差连接，尺度合适就不会",
        takes_images=True,
    ),
}


def run_lesson(name: str, out: str | Path, *, full: bool = False, images: str | Path | None = None) -> dict[str, Any]:
    """Run a lesson: write its pictures, NAME.md and NAME.json into a folder, and return its numbers.

    Args:
        name: one of `LESSONS`.
        out: the folder, made where it is missing; files of the same names are replaced.
        full: the real size where the lesson trains, instead of 32 px, or more seeds, and the time that it needs.
        images: a data folder (it holds train and valid) to train on in place of the drawn pictures.

    Returns:
        The numbers, with `claims` (`Claim.as_json`), which is empty where nothing was known before.

    Raises:
        UserError: no such lesson, matplotlib is missing, the folder is not local or cannot be written to, or the lesson
            takes no images.
    """
    check_lesson(name, images=images is not None)
    from jaxfood.lessons.claims import write_claims
    from jaxfood.report.page import Page

    page = Page(out, name, LESSONS[name].summary)
    lesson = import_module(f"jaxfood.lessons.{name.replace('-', '_')}")
    given = {} if images is None else {"images": Path(images)}
    numbers: dict[str, Any] = {"claims": [], **lesson.measure(full=full, **given)}
    lesson.write(numbers, page)
    write_claims(numbers["claims"], page)
    page.save(numbers)
    return numbers


def check_lesson(name: str, *, images: bool) -> None:
    """That there is such a lesson, and that it takes photographs where some are given.

    Raises:
        UserError: it is not so.
    """
    if name not in LESSONS:
        raise UserError(f"no lesson {name!r}; there are: {', '.join(LESSONS)}")
    if images and not LESSONS[name].takes_images:
        able = ", ".join(each for each, lesson in LESSONS.items() if lesson.takes_images)
        raise UserError(f"--images: the lesson {name} trains on no pictures; those that do: {able}")
