"""Parameters that stay as they are: `train.freeze`.

They get no update, no decay and no moments, and are no part of the gradient's norm, as PyTorch's parameters after
`requires_grad_(False)`. A BatchNorm whose scale and bias are frozen also keeps its running statistics and normalises by
them, as PyTorch's does after `eval()` and torchvision's `FrozenBatchNorm2d`: few pictures of another kind would
otherwise change what the frozen layers after it see.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import lax

from jaxfood.errors import UserError, shown

BODY = "body"  # all but the head


def frozen_mask(params: Any, freeze: str) -> Any:
    """For each leaf of `params` whether it is frozen.

    Args:
        params: a network's.
        freeze: `train.freeze`, beginnings of names such as "layer1" or "block1.kernel", joined by commas.

    Raises:
        UserError: a beginning is no parameter's, or nothing is left to train.
    """
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in _leaves(params)]
    frozen: set[str] = set()
    for beginning in filter(None, map(str.strip, freeze.split(","))):
        found = {name for name in names if _begins(name, beginning)}
        if not found:
            modules = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UserError(
                f"train.freeze = {shown(freeze)}: no parameter's name begins with {shown(beginning)}; there are "
                f"{BODY} (all but the head), {modules}"
            )
        frozen |= found
    if len(frozen) == len(names):
        raise UserError(f"train.freeze = {shown(freeze)} leaves nothing to train: leave the head out, or one more")
    return jax.tree.unflatten(jax.tree.structure(params), [name in frozen for name in names])


def stop_frozen(params: Any, freeze: str) -> Any:
    """The parameters, of which the frozen ones have gradients of zero, which cost nothing."""
    if not freeze:
        return params
    mask = frozen_mask(params, freeze)
    return jax.tree.map(lambda leaf, is_frozen: lax.stop_gradient(leaf) if is_frozen else leaf, params, mask)


@contextmanager
def frozen_statistics(params: Any, freeze: str) -> Iterator[None]:
    """While a network is applied, each BatchNorm that is frozen takes its running statistics and leaves them."""
    if not freeze:
        yield
        return
    scales = {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path[:-1]): is_frozen
        for path, is_frozen in _leaves(frozen_mask(params, freeze))
        if jax.tree_util.keystr(path[-1:], simple=True) == "scale"
    }

    def is_frozen(path: tuple[str, ...]) -> bool:
        below = [frozen for name, frozen in scales.items() if name[: len(path)] == path]
        return bool(below) and all(below)

    def without_training(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        # Of a block too, as a fused one reads its BatchNorm's parameters; not of the whole network, which has dropout.
        path = context.module.path
        if path and context.method_name == "__call__" and kwargs.get("train") and is_frozen(path):
            kwargs = {**kwargs, "train": False}
        return next_call(*args, **kwargs)

    with nn.intercept_methods(without_training):
        yield


def describe_frozen(params: Any, freeze: str) -> str:
    """How much of a network is frozen, in a line; empty: nothing."""
    if not freeze:
        return ""
    sizes = [int(np.prod(leaf.shape)) for _, leaf in _leaves(params)]
    frozen = sum(size for size, stays in zip(sizes, jax.tree.leaves(frozen_mask(params, freeze)), strict=True) if stays)
    return (
        f"train.freeze = {freeze}: {frozen:,} of {sum(sizes):,} parameters stay as they are, and BatchNorm's running "
        "statistics beside them"
    )


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _begins(name: str, beginning: str) -> bool:
    if beginning == BODY:
        return name.partition(".")[0] != "head"
    rest = name.removeprefix(beginning)
    return name.startswith(beginning) and not (beginning[-1].isdigit() and rest[:1].isdigit())  # layer1 is not layer10
