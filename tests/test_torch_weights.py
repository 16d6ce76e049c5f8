"""Weights to and from PyTorch: the mapping, the files, and what is refused."""

import argparse
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import parity
import pytest
import safetensors.numpy
from etils import epath

from jaxfood import convert, files
from jaxfood.errors import UserError
from jaxfood.files import is_remote
from jaxfood.model.classifier import FoodClassifier
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.weights import from_state_dict, from_torch, to_state_dict, to_torch

SIZES = [(64, 11), (128, 10)]


@pytest.fixture(scope="module")
def weights() -> parity.Tensors:
    """A state dict for 32 px: read it, don't change it."""
    return parity.make_weights(32)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")


def make_module(image_size: int, num_classes: int) -> Any:
    from torch_reference import Classifier

    return Classifier(image_size, num_classes)


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """The same names, types and bits, but for the counters."""
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        if not name.endswith("num_batches_tracked"):
            assert ours[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize(("image_size", "num_classes"), SIZES)
def test_export_after_import_gives_the_same_bits(image_size: int, num_classes: int) -> None:
    weights = parity.make_weights(image_size, num_classes)
    variables = from_state_dict(weights)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    own = jax.eval_shape(FoodClassifier(num_classes).init, jax.random.key(0), images)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), own
    )
    table = table_of_variables(variables)
    assert (table.image_size, table.num_classes) == (image_size, num_classes)
    assert_same(to_state_dict(variables), weights)


@pytest.mark.torch
@pytest.mark.parametrize(("image_size", "num_classes"), SIZES)
def test_names_shapes_and_order_are_those_of_the_module(torch: Any, image_size: int, num_classes: int) -> None:
    theirs = {name: tensor.numpy() for name, tensor in make_module(image_size, num_classes).state_dict().items()}
    assert_same(to_state_dict(from_torch(theirs)), theirs)


def test_first_linear_layer_is_permuted() -> None:
    """Input (channel 5, row 1, column 0) of 512 x 2 x 2 in PyTorch is (row 1, column 0, channel 5) here."""
    weights = parity.make_weights(64)
    kernel = from_state_dict(weights)["params"]["dense1"]["kernel"]
    np.testing.assert_array_equal(kernel[(1 * 2 + 0) * 512 + 5], weights["fc.0.weight"][:, 5 * 4 + 1 * 2 + 0])


def test_float64_stays_float64(weights: parity.Tensors) -> None:
    doubles = {name: tensor.astype(np.float64) / 3 for name, tensor in weights.items() if tensor.dtype.kind == "f"}
    assert from_state_dict(doubles)["params"]["head"]["bias"].dtype == jnp.float32
    with jax.enable_x64(True):
        back = to_state_dict(from_state_dict(doubles))
    assert_same({name: back[name] for name in doubles}, doubles)


def test_import_copies(weights: parity.Tensors) -> None:
    """A module that goes on training must not change the variables; nor does an export hand out our memory."""
    mine = {name: tensor.copy() for name, tensor in weights.items()}
    variables = from_torch(mine)
    for tensor in mine.values():
        tensor[...] = 7
    exported = to_state_dict(variables)
    assert_same(exported, weights)
    for tensor in exported.values():
        tensor[...] = 7
    assert_same(to_state_dict(variables), weights)


@pytest.mark.torch
def test_import_copies_a_living_module(torch: Any) -> None:
    module = make_module(32, 11)
    before = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    variables = from_torch(module.state_dict())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7)
    assert_same(to_state_dict(variables), before)


# Files.


@pytest.mark.torch
@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".safetensors", ".PTH"])
def test_files(torch: Any, weights: parity.Tensors, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"best{suffix}"
    path.write_text("an earlier file")
    to_torch(from_state_dict(weights), path)
    assert list(tmp_path.iterdir()) == [path]
    assert_same(to_state_dict(from_torch(str(path))), weights)
    if suffix == ".safetensors":
        import safetensors.torch

        tensors = safetensors.torch.load_file(path)
    else:
        tensors = torch.load(path, weights_only=True)
    make_module(32, 11).load_state_dict(tensors, strict=True)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_half_precision_becomes_float32(torch: Any, tmp_path: Path, dtype: str, suffix: str) -> None:
    import safetensors.torch

    tensors = make_module(32, 11).to(getattr(torch, dtype)).state_dict()
    path = tmp_path / f"half{suffix}"
    (torch.save if suffix == ".ckpt" else safetensors.torch.save_file)(tensors, path)
    theirs = {name: (tensor.float() if tensor.is_floating_point() else tensor) for name, tensor in tensors.items()}
    assert_same(to_state_dict(from_torch(path)), {name: tensor.numpy() for name, tensor in theirs.items()})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_arrays_become_float32(weights: parity.Tensors, dtype: Any) -> None:
    narrow = {name: tensor.astype(dtype) for name, tensor in weights.items()}
    wide = {name: tensor.astype(weights[name].dtype) for name, tensor in narrow.items()}
    assert_same(to_state_dict(from_torch(narrow)), wide)


@pytest.mark.smoke
def test_safetensors_need_no_torch(weights: parity.Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    variables = from_torch(weights)
    to_torch(variables, tmp_path / "best.safetensors")
    assert_same(to_state_dict(from_torch(tmp_path / "best.safetensors")), weights)
    (tmp_path / "best.ckpt").write_bytes(b"")
    for action in (lambda: to_torch(variables, tmp_path / "best.ckpt"), lambda: from_torch(tmp_path / "best.ckpt")):
        with pytest.raises(UserError, match=r"best\.ckpt: .*pip install torch, or use a \.safetensors file"):
            action()


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, jaxfood.pytorch.weights; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)


# Names.


def prefixed(tensors: parity.Tensors, prefix: str) -> parity.Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


WRAPPED: dict[str, Callable[[parity.Tensors], dict[Any, Any]]] = {
    "DataParallel": lambda tensors: prefixed(tensors, "module."),
    "compiled": lambda tensors: prefixed(tensors, "_orig_mod."),
    "both": lambda tensors: prefixed(tensors, "module._orig_mod."),
    "both, and again": lambda tensors: prefixed(tensors, "_orig_mod.module._orig_mod."),
    "a compiled part": lambda tensors: {name.replace("cnn.", "cnn._orig_mod."): tensors[name] for name in tensors},
    "FSDP": lambda tensors: prefixed(
        {name.replace("fc.", "fc._fsdp_wrapped_module."): tensors[name] for name in tensors}, "_fsdp_wrapped_module."
    ),
    "AveragedModel": lambda tensors: {"n_averaged": np.array(3), **prefixed(tensors, "module.")},
    "Lightning": lambda tensors: {
        "epoch": 1,
        "pytorch-lightning_version": "2.5",
        "state_dict": prefixed(tensors, "model."),
        "callbacks": {"EarlyStopping": {"wait": 0}},
        "optimizer_states": [{"state": {0: {"exp_avg": np.zeros(3)}}, "param_groups": [{"params": [0]}]}],
        "hyper_parameters": {"lr": 1e-3},
    },
    "Lightning, compiled, net": lambda tensors: {"state_dict": prefixed(tensors, "net._orig_mod.")},
    "a name of one's own": lambda tensors: {"last": {"zoo": prefixed(tensors, "mine.cnn.")}},
    "under model": lambda tensors: {"model": tensors, "epoch": 3, "optimizer": {"state": {}}},
    "under state_dict": lambda tensors: {"state_dict": tensors},
    "under both": lambda tensors: {"state_dict": {"model": prefixed(tensors, "module.")}},
    "under net": lambda tensors: {"net": tensors, "acc": 91.2, "epoch": 3},
    "under weights": lambda tensors: {"weights": tensors},
    "PyTorch's tutorial": lambda tensors: {"model_state_dict": tensors, "loss": 0.5},
    "without counters": lambda tensors: {name: tensors[name] for name in tensors if "num_batches" not in name},
    "parts": lambda tensors: {
        part: {name.removeprefix(f"{part}."): tensors[name] for name in tensors if name.startswith(part)}
        for part in ("cnn", "fc")
    },
    "counters and keys that are no text": lambda tensors: {**tensors, "count": np.array(3), 5: [1], None: 2, (1,): {}},
    "the same twice": lambda tensors: {"model": tensors, "best": tensors},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_wrapped_names(weights: parity.Tensors, wrap: Callable[[parity.Tensors], dict[str, Any]]) -> None:
    assert_same(to_state_dict(from_torch(wrap(weights))), weights)


def test_a_dictionary_that_contains_itself(weights: parity.Tensors) -> None:
    content: dict[str, Any] = {"state_dict": weights}
    content["all"] = content
    assert_same(to_state_dict(from_torch(content)), weights)
    for _ in range(2000):
        content = {"deeper": content}
    with pytest.raises(UserError, match=r"^holds no tensors; its keys are deeper: save model\.state_dict\(\)"):
        from_torch(content)


@pytest.mark.parametrize(
    "names", [("model", "model_ema"), ("ema", "model"), ("swa.module", "net"), ("student", "teacher")]
)
def test_of_several_that_fit_one_is_taken_and_named(weights: parity.Tensors, names: tuple[str, str]) -> None:
    """Those in training before an average of them; a part can be named."""
    others = {name: tensor + 1 for name, tensor in weights.items()}
    average = next(name for name in names if name not in ("model", "net", "student"))
    content = {name: others if name == average else weights for name in names}
    trained = next(name for name in names if name != average)
    with pytest.warns(
        UserWarning, match=rf"^the weights are those of {trained}; the part {average} would fit too: --part takes it$"
    ):
        variables = from_torch(content)
    assert_same(to_state_dict(variables), weights)
    assert_same(to_state_dict(from_torch(content, part=average)), others)
    with pytest.raises(UserError, match=rf"^has no part x: its keys are {names[0]}, {names[1]}$"):
        from_torch(content, part="x")


def numbered(tensors: parity.Tensors, part: str, numbers: Mapping[int, int], new: str = "") -> parity.Tensors:
    """The tensors with other numbers, and perhaps another name, for the modules of a part."""

    def rename(name: str) -> str:
        own, number, rest = name.split(".", 2)
        return f"{new or part}.{numbers.get(int(number), number)}.{rest}" if own == part else name

    return {rename(name): tensor for name, tensor in tensors.items()}


NUMBERED: dict[str, tuple[Callable[[parity.Tensors], parity.Tensors], str]] = {
    "Dropout": (lambda tensors: numbered(tensors, "fc", {2: 3, 4: 6}), "fc.3 as fc.2, fc.6 as fc.4"),
    "Dropout first": (
        lambda tensors: prefixed(numbered(tensors, "fc", {0: 1, 2: 4, 4: 7}), "model."),
        "fc.1 as fc.0, fc.4 as fc.2, fc.7 as fc.4",
    ),
    "Dropout2d": (
        lambda tensors: numbered(tensors, "cnn", {n: n + n // 4 for n in range(20)}),
        "cnn.5 as cnn.4, cnn.10 as cnn.8, .* and 2 more",
    ),
    "names of torchvision": (
        lambda tensors: numbered(numbered(tensors, "cnn", {}, "features"), "fc", {}, "classifier"),
        ".*features.0 as cnn.0, .* and 7 more",
    ),
}


@pytest.mark.parametrize(("change", "said"), NUMBERED.values(), ids=NUMBERED.keys())
def test_modules_with_other_numbers_are_taken_by_order(
    weights: parity.Tensors, change: Callable[[parity.Tensors], parity.Tensors], said: str
) -> None:
    """However the file orders them: .safetensors sorts names as text."""
    for tensors in (change(weights), dict(sorted(change(weights).items()))):
        with pytest.warns(UserWarning, match=rf"^by order and shape the weights are {said}: check that the network is"):
            assert_same(to_state_dict(from_torch(tensors)), weights)


def test_what_order_does_not_tell_is_refused(weights: parity.Tensors) -> None:
    """Names without numbers, another layer more, and shapes that fit in another order alone."""
    renamed = {name.replace("fc.2.", "fc.middle."): tensor for name, tensor in weights.items()}
    with pytest.raises(UserError, match=r"^missing fc\.2\.weight, fc\.2\.bias; unexpected fc\.middle\.bias"):
        from_torch(renamed)
    letters = {
        "cnn.1.": "norm.a.",
        "cnn.5.": "norm.b.",
        "cnn.9.": "norm.c.",
        "cnn.13.": "norm.d.",
        "cnn.17.": "norm.e.",
    }
    lettered = dict(weights)
    for number, letter in letters.items():
        lettered = {name.replace(number, letter): tensor for name, tensor in lettered.items()}
    with pytest.raises(UserError, match=r"^missing cnn\.1\.weight.*unexpected norm\.a\.bias"):
        from_torch(lettered)
    more = {**numbered(weights, "fc", {2: 3, 4: 6}), "fc.1.weight": np.ones(1024), "fc.1.bias": np.ones(1024)}
    with pytest.raises(UserError, match=r"^missing fc\.2\.weight.*; unexpected fc\.1\.bias"):
        from_torch(more)
    with pytest.raises(UserError, match=r"^missing fc\.2\.weight"):
        from_torch(numbered(weights, "fc", {0: 6, 2: 3, 4: 0}))


def test_what_is_passed_over_is_named(weights: parity.Tensors) -> None:
    content = {"state_dict": {**prefixed(weights, "net."), "criterion.weight": np.ones(11), "step": np.array(3)}}
    with pytest.warns(UserWarning, match=r"^passed over beside the weights: state_dict\.criterion\.weight \[11\]$"):
        assert_same(to_state_dict(from_torch(content)), weights)


def changed(weights: parity.Tensors, **tensors: np.ndarray | None) -> dict[str, Any]:
    """The weights with some replaced, or left out where None; `__` in a name stands for its dots."""
    new = weights | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in new.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cnn__4__bias": None}, "missing cnn.4.bias: "),
        ({"fc__0__weight": None, "cnn__1__running_var": None}, "missing cnn.1.running_var, fc.0.weight: "),
        ({"fc__6__weight": np.zeros(3, np.float32)}, "unexpected fc.6.weight: "),
        ({"cnn__4__bias": None, "x": np.zeros(3)}, "missing cnn.4.bias; unexpected x: "),
        ({"cnn__0__weight": np.zeros((64, 1, 3, 3))}, "cnn.0.weight has shape [64, 1, 3, 3], expected [64, 3, 3, 3]: "),
        ({"fc__2__bias": np.zeros(())}, "fc.2.bias has shape [], expected [512]: "),
        ({"fc__4__bias": np.zeros(10)}, "fc.4.bias has shape [10], expected [11]: "),
        ({"fc__0__weight": np.zeros((1024, 1024))}, "fc.0.weight has shape [1024, 1024], expected [1024, 512]: "),
        ({"fc__0__weight": np.zeros((512, 1024))}, "fc.0.weight has shape [512, 1024], expected [1024, 512]: "),
        ({"fc__4__weight": np.zeros((0, 512))}, "fc.4.weight has shape [0, 512], expected [1, 512], fc.4.bias has "),
        ({"fc__2__bias": np.zeros(512, np.int32)}, "fc.2.bias has type int32: "),
        ({"fc__2__bias": {"nested": 1}}, "missing fc.2.bias: "),
        ({"fc__2__bias": [[1], [2, 3]]}, "fc.2.bias is of type list, not a plain tensor: "),
        (
            {"fc__2__bias": np.ones(512, np.complex64)},
            "fc.2.bias has type complex64: give floating-point weights",
        ),
        (
            {"fc__2__bias": np.full(512, np.nan)},
            "has NaN or infinity in 1 of 36 tensors: fc.2.bias (512 of 512): give ",
        ),
        ({"fc__2__bias": np.full(512, 1e300)}, "has NaN or infinity in 1 of 36 tensors: fc.2.bias (512 of 512)"),
        ({"temperature": np.ones(())}, "unexpected temperature: "),
        ({"a\nb": np.ones(3)}, r"unexpected 'a\nb': "),
        ({"x" * 9999: np.ones(3)}, f"unexpected {'x' * 80}... (500 letters): "),
        ({"fc__2__bias": "text"}, "fc.2.bias is of type str, not a plain tensor: "),
        ({"module__fc__2__bias": np.zeros(512)}, "fc.2.bias comes twice, once as module.fc.2.bias: "),
    ],
)
def test_wrong_tensors_are_named(weights: parity.Tensors, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_torch(changed(weights, **changes))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_another_architecture_is_told_in_one_line() -> None:
    names = ["conv1.weight", *(f"layer{i}.0.conv1.weight" for i in range(1, 5)), "fc.weight"]
    others = ["stem.conv.weight", *(f"stages.{i}.conv.weight" for i in range(1, 5)), "top.weight"]
    tensors = {name: np.zeros((8, 3), np.float32) for name in names}
    with pytest.raises(UserError) as caught:
        from_torch({"net": tensors, "epoch": 3, "acc": np.float64(0.5)})
    assert str(caught.value) == (
        "holds 6 tensors (net.conv1.weight [8, 3], net.layer1.0.conv1.weight [8, 3], net.layer2.0.conv1.weight [8, 3], "
        "..., net.fc.weight [8, 3]), 6 of them named as the 102 of resnet18; its keys are net, epoch, acc: "
        "save model.state_dict() instead"
    )
    with pytest.raises(UserError) as caught:
        from_torch({name: np.zeros((8, 3), np.float32) for name in others})
    assert "none of them named as those of the notes' Classifier, resnet18 or resnet34; its keys are" in str(
        caught.value
    )


def test_wrong_variables_are_named(weights: parity.Tensors, tmp_path: Path) -> None:
    variables = from_state_dict(weights)
    path = tmp_path / "best.safetensors"
    with pytest.raises(UserError, match=r"best\.safetensors: missing batch_stats/block1/norm/mean"):
        to_torch({"params": variables["params"]}, path)
    wide = jax.eval_shape(FoodClassifier().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 64, 3), jnp.float32))
    wide = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wide)
    for function in (table_of_variables, to_state_dict):
        with pytest.raises(UserError, match=r"params/dense1/kernel has shape \[1024, 1024\], expected \[512, 1024\]"):
            function(wide)
    assert not list(tmp_path.iterdir())


# Files that are refused.


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def save_torch(content: Any, path: Path) -> None:
    import torch

    torch.save(content, path)


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.torch
@pytest.mark.parametrize("save", [save_pickle, save_torch])
def test_pickled_code_does_not_run(torch: Any, tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    path, marker = tmp_path / "evil.ckpt", tmp_path / "ran"
    save({"fc.4.bias": Evil(marker)}, path)
    with pytest.raises(UserError, match=r"evil\.ckpt: .*refused.*: save model\.state_dict\(\) instead$"):
        from_torch(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()  # it would have


@pytest.mark.torch
@pytest.mark.parametrize("beside", [False, True])
def test_pickled_module_is_refused(torch: Any, tmp_path: Path, beside: bool) -> None:
    module = make_module(32, 11)
    torch.save({"model": module} if beside else module, tmp_path / "module.pt")
    said = (
        r"module\.pt: holds no tensors; .*pickled modules or other objects \(torch\.nn.*\) are refused because reading "
        r"them can run code: save model\.state_dict\(\) instead$"
    )
    with pytest.raises(UserError, match=said):
        from_torch(tmp_path / "module.pt")


@pytest.mark.torch
def test_objects_beside_the_weights_are_not_read(torch: Any, weights: parity.Tensors, tmp_path: Path) -> None:
    """Those of NumPy are; those of any class are passed over, and nothing of theirs is run."""
    marker = tmp_path / "ran"
    beside = {
        "best": np.float64(0.5),
        "history": np.arange(3.0),
        "args": argparse.Namespace(lr=1e-3, out=tmp_path),
        "config": defaultdict(list, {"a": [OrderedDict(b=1)]}),
        "sampler": SimpleNamespace(seed=3),
        "rng": (np.random.default_rng(0).bit_generator.state, torch.get_rng_state()),
    }
    tensors = {name: torch.tensor(tensor) for name, tensor in weights.items()}
    torch.save({"net": defaultdict(list, tensors), **beside, "code": Runs(marker)}, tmp_path / "best.pth.tar")
    assert_same(to_state_dict(from_torch(tmp_path / "best.pth.tar")), weights)
    assert not marker.exists()
    del beside["sampler"]
    torch.save({"net": tensors, **beside}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert_same(to_state_dict(from_torch(tmp_path / "old.bin")), weights)


class Runs:
    """Unpickling it makes a file, by a function that PyTorch's reader can be made to allow."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (make_file, (self.marker,))


def make_file(path: Path) -> None:
    path.touch()


WRONG_TENSORS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sparse": (lambda tensor: tensor.to_sparse(), "fc.2.weight is no plain tensor ("),
    "sparse rows": (lambda tensor: tensor.to_sparse_coo().coalesce(), "fc.2.weight is no plain tensor ("),
    "meta": (lambda tensor: tensor.to("meta"), "fc.2.weight is no plain tensor (Cannot copy out of meta tensor; no"),
    "whole numbers": (lambda tensor: tensor.int(), "fc.2.weight has type int32: give floating-point weights"),
    "complex": (lambda tensor: tensor * 1j, "fc.2.weight has type complex64: give floating-point weights"),
    "8 bits": (lambda tensor: tensor.char(), "fc.2.weight has type int8: give floating-point weights"),
    "a list": (lambda tensor: [[1.0], [2.0, 3.0]], "fc.2.weight is of type list, not a plain tensor: "),
    "nothing": (lambda tensor: None, "fc.2.weight is of type NoneType, not a plain tensor: "),
    "one number": (
        lambda tensor: tensor[:1, :1].clone().expand(tensor.shape),
        "fc.2.weight repeats few numbers over a large",
    ),
    "turned": (lambda tensor: tensor.t(), "fc.2.weight has shape [1024, 512], expected [512, 1024]"),
    "NaN": (lambda tensor: tensor / 0 * 0, "has NaN or infinity in 1 of 36 tensors: fc.2.weight (524288 of 524288)"),
}


@pytest.mark.torch
@pytest.mark.parametrize(("change", "said"), WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_wrong_tensors_in_a_file(
    torch: Any, weights: parity.Tensors, tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    tensors = {name: torch.tensor(tensor) for name, tensor in weights.items()}
    path = tmp_path / "best.pt"
    torch.save({"model": tensors | {"fc.2.weight": change(tensors["fc.2.weight"])}}, path)
    with pytest.raises(UserError) as caught:
        from_torch(path)
    text = str(caught.value)
    assert text.removeprefix(f"{path}: ").replace("model.fc", "fc").startswith(said)
    assert text.isprintable()


OTHER_FILES = {
    b"": "is empty, no PyTorch checkpoint",
    b"\x89HDF\r\n\x1a\n" + bytes(99): "is an HDF5 file, as Keras writes them",
    b"version https://git-lfs.github.com/spec/v1": "is a pointer of Git LFS, not the file itself: git lfs pull",
    b"<!DOCTYPE html>": "is a page of HTML, not a checkpoint: download the file itself",
    b"\x08\x08\x12\x07pytorch": "is no PyTorch checkpoint but ONNX, or another format",
    b"\x1f\x8b\x08": "is compressed by gzip: unpack it",
}


@pytest.mark.torch
@pytest.mark.parametrize(("content", "said"), OTHER_FILES.items(), ids=OTHER_FILES.values())
def test_files_of_other_kinds_are_named(torch: Any, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(UserError, match=rf"best\.pt: {said}[^\n]*$"):
        from_torch(tmp_path / "best.pt")


@pytest.mark.torch
def test_archives_of_other_kinds_are_named(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    for name, said in {
        "best/constants.pkl": r"a TorchScript archive, which is a program: save torch\.jit\.load",
        "model.weights.h5": "a model of Keras'",
        "cnn.npy": "an archive of NumPy arrays",
    }.items():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(UserError, match=rf"best\.pt: is {said}"):
            from_torch(path)
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "storages")
    with pytest.raises(UserError, match=r"best\.pt: is a tar archive, as PyTorch wrote before 2017"):
        from_torch(path)


@pytest.mark.torch
def test_damage_that_pytorch_does_not_see(torch: Any, tmp_path: Path) -> None:
    """PyTorch checks no checksum, and gives memory that nobody wrote to for what is marked as a folder."""
    path = tmp_path / "best.pt"
    torch.save({"x": torch.ones(1000)}, path)
    whole = path.read_bytes()
    at = whole.index(np.float32(1).tobytes() * 1000)
    flipped = whole[: at + 8] + b"\x01" + whole[at + 9 :]
    entry = whole.rindex(b"data/0") - len("best/") - 46
    folder = whole[: entry + 38] + b"\x10" + whole[entry + 39 :]
    for content, reason in ((flipped, "Bad CRC-32 for file 'best/data/0'"), (folder, "a folder in place of numbers")):
        path.write_bytes(content)
        assert torch.load(path, weights_only=True)["x"].shape == (1000,)
        with pytest.raises(UserError, match=rf"best\.pt: is no .* or a damaged one \(BadZipFile: {reason}"):
            from_torch(path)


@pytest.mark.torch
def test_without_checksums(torch: Any, weights: parity.Tensors, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        to_torch(from_state_dict(weights), tmp_path / "best.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(to_state_dict(from_torch(tmp_path / "best.pt")), weights)


@pytest.mark.torch
def test_the_content_says_which_format_it_is(torch: Any, weights: parity.Tensors, tmp_path: Path) -> None:
    variables = from_state_dict(weights)
    to_torch(variables, tmp_path / "best.safetensors")
    to_torch(variables, tmp_path / "best.pt")
    for old, new in (("best.safetensors", "a.bin"), ("best.pt", "b.safetensors"), ("a.bin", "c.ckpt")):
        (tmp_path / old).rename(tmp_path / new) if old != "a.bin" else shutil.copy(tmp_path / old, tmp_path / new)
        assert_same(to_state_dict(from_torch(tmp_path / new)), weights)


@pytest.mark.torch
@pytest.mark.parametrize("content", ["nothing", "text", "half"])
def test_damaged_checkpoints(torch: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "damaged.ckpt"
    torch.save({"x": torch.ones(1000)}, path)
    path.write_bytes({"nothing": b"", "text": b"not a checkpoint", "half": path.read_bytes()[:2000]}[content])
    with pytest.raises(UserError, match=r"damaged\.ckpt: [^\n]*no (PyTorch )?checkpoint[^\n]*$"):
        from_torch(path)


@pytest.mark.torch
def test_checkpoint_of_something_else(torch: Any, tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt: holds a list, not a dictionary of tensors: save model\.state_dict"):
        from_torch(tmp_path / "list.pt")


def test_refused_safetensors(weights: parity.Tensors, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=r"best\.safetensors: is no safetensors file or a damaged one"):
        from_torch(path)
    safetensors.numpy.save_file({"x": np.zeros(3, np.uint8)}, path)
    with pytest.raises(UserError, match=r"best\.safetensors: holds 1 tensor \(x \[3\]\), none of them named"):
        from_torch(path)
    content = safetensors.numpy.save(changed(weights, fc__2__bias=weights["fc.2.bias"].view(np.int32)))
    path.write_bytes(content.replace(b'"I32"', b'"U32"'))
    with pytest.raises(UserError, match=r"best\.safetensors: fc\.2\.bias has type U32: give floating-point weights"):
        from_torch(path)
    safetensors.numpy.save_file(changed(weights, cnn__0__bias=None), path)
    with pytest.raises(UserError, match=r"best\.safetensors: missing cnn\.0\.bias"):
        from_torch(path)


def test_refused_paths(weights: parity.Tensors, tmp_path: Path) -> None:
    variables = from_state_dict(weights)
    suffixes = r"best\.h5: unknown suffix '\.h5': give a file ending in \.ckpt, \.pt, \.pth, "
    with pytest.raises(UserError, match=suffixes + r"\.pth\.tar, \.bin, \.safetensors$"):
        from_torch(tmp_path / "best.h5")
    with pytest.raises(UserError, match=suffixes + r"\.safetensors$"):
        to_torch(variables, tmp_path / "best.h5")
    with pytest.raises(UserError, match=r"best\.safetensors: cannot be read \(No such file or directory\)"):
        from_torch(tmp_path / "best.safetensors")
    with pytest.raises(UserError, match=r"best\.safetensors: cannot be written \(No such file or directory\)"):
        to_torch(variables, tmp_path / "absent" / "best.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match=r"folder\.safetensors: cannot be read \(Is a directory\)"):
        from_torch(tmp_path / "folder.safetensors")
    with pytest.raises(UserError, match=r"folder\.safetensors: cannot be written \(Is a directory\)"):
        to_torch(variables, tmp_path / "folder.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"best\.pt: is a pipe or a device: give a file of weights$"):
        from_torch(tmp_path / "best.pt")


def test_a_name_that_is_too_long_is_no_crash(weights: parity.Tensors, tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 300}.pt"
    with pytest.raises(UserError, match=r"x\.pt: cannot be read \(File name too long\)"):
        from_torch(path)
    with pytest.raises(UserError, match=r"a name is longer than 255 bytes"):
        convert.main(["to-torch", str(tmp_path), str(path)])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a bucket that needs neither gcsfs nor a network, by their paths."""
    held: dict[str, bytes] = {}

    def cat_file(path: str) -> bytes:
        if path not in held:
            raise FileNotFoundError(path)
        return held[path]

    paths = type(epath.Path("gs://food"))
    local = paths.exists
    monkeypatch.setattr(paths, "exists", lambda path: os.fspath(path) in held if is_remote(path) else local(path))
    monkeypatch.setattr(files, "require", lambda *_, **__: None)
    monkeypatch.setattr(files, "_check_reachable", lambda _: None)
    monkeypatch.setattr(files, "_filesystem", lambda: SimpleNamespace(cat_file=cat_file, pipe_file=held.__setitem__))
    return held


def test_weights_in_a_bucket(
    weights: parity.Tensors, bucket: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written and read there, by the library and by the command."""
    monkeypatch.chdir(tmp_path)
    to_torch(from_state_dict(weights), "gs://food/best.safetensors")
    assert_same(to_state_dict(from_torch("gs://food/best.safetensors")), weights)
    convert.main(["from-torch", "gs://food/best.safetensors", "run"])
    convert.main(["to-torch", "run", "gs://food/back.safetensors"])
    assert bucket["gs://food/back.safetensors"] == bucket["gs://food/best.safetensors"]
    with pytest.raises(UserError, match=r"^gs://food/back\.safetensors: is there already: give --overwrite to replace"):
        convert.main(["to-torch", "run", "gs://food/back.safetensors"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(UserError, match=r"^gs://food/absent\.pt: cannot be read \(gs://food/absent\.pt\): give a file"):
        from_torch("gs://food/absent.pt")


def test_failed_write_keeps_the_earlier_file(
    weights: parity.Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.safetensors"
    path.write_text("earlier")

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        to_torch(from_state_dict(weights), path)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
