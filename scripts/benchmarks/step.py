"""Images per second of jaxfood and of PyTorch in each of its forms, on this machine.

    python scripts/benchmarks/step.py [--model classifier] [--batch_size 64] [--image_size 128] [--steps 7]
        [--updates 4] [--compile]

Training is the whole update: forward, backward, clipping, Adam (3e-4, L2 1e-5). A turn of it is --updates of them, for
jaxfood one program, as its training makes them. All run in one process and take turns; the median of the turns is
printed, after a warm-up that compiles. Pictures are random.

PyTorch runs as in the notes (eager, float32), in the memory format channels_last, and that with bfloat16 autocast;
with `--compile` the last two by `torch.compile` too, which needs a C++ compiler and about a minute before the first
step. A GPU has the float32 forms alone. Ratios are to the notes' form and to PyTorch's fastest.

`--model resnet18` (or resnet34) is torchvision's with the stem for small pictures, `--stem imagenet` with its own;
`--model resnet` is jaxfood's own, rebuilt in PyTorch.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
from measuring import Parser, Work, in_turns, need_torch, print_setting, print_table, random_pictures

from jaxfood import TrainState, load_config
from jaxfood.model.networks import init_variables, predict_logits
from jaxfood.training.metrics import zero_sums
from jaxfood.training.step import add_update, add_updates

NOTES = "PyTorch eager"  # and float32


def main() -> None:
    parser = Parser(__doc__)
    parser.add_numbers(batch_size=64, image_size=128, steps=7, updates=4)
    parser.add_argument("--model", default="classifier", choices=("classifier", "resnet", "resnet18", "resnet34"))
    parser.add_argument("--stem", default="small", choices=("small", "imagenet"), help="of resnet18 and resnet34")
    parser.add_argument("--compile", action="store_true", help="compare with torch.compile too")
    arguments = parser.parse_args()
    need_torch()

    pictures = random_pictures(arguments.batch_size, arguments.image_size)
    works: dict[str, tuple[Work, Work]] = {}
    for dtype in ("float32", "bfloat16"):
        works[f"jaxfood {dtype}"] = jaxfood_works(pictures, arguments.model, arguments.stem, dtype, arguments.updates)
    for form in torch_forms(arguments.compile):
        works[form] = torch_works(pictures, form, arguments.model, arguments.stem, arguments.updates)
    kinds = ("training", "evaluation")
    flat = {f"{form} {kind}": work for form, pair in works.items() for kind, work in zip(kinds, pair, strict=True)}
    medians = in_turns(flat, arguments.steps, warm_up=2)
    batches = {"training": arguments.updates, "evaluation": 1}
    rates = {
        name: arguments.batch_size * batches[name.rpartition(" ")[2]] / seconds.clock
        for name, seconds in medians.items()
    }

    network = arguments.model if arguments.model in ("classifier", "resnet") else f"{arguments.model} {arguments.stem}"
    size = f"{network}, batch {arguments.batch_size}, {arguments.image_size} px"
    turns = f"{arguments.steps} turns of {arguments.updates} updates"
    print_setting(f"{size}, median of {turns}; ratios to {NOTES} and to PyTorch's fastest\n")
    best = {kind: max(rates[f"{form} {kind}"] for form in works if form.startswith("PyTorch")) for kind in kinds}
    rows = []
    for form in works:
        cells: list[str] = []
        for kind in kinds:
            rate = rates[f"{form} {kind}"]
            cells += f"{rate:.1f}", f"{rate / rates[f'{NOTES} {kind}']:.2f}", f"{rate / best[kind]:.2f}"
        rows.append([form, *cells])
    print_table(("images/s", *(cell for kind in kinds for cell in (kind, "/ notes", "/ fastest"))), rows)


def torch_forms(is_compiled: bool) -> list[str]:
    """The notes' form first."""
    forms = [NOTES, "PyTorch channels_last"]
    if jax.default_backend() == "cpu":
        forms.append("PyTorch channels_last bfloat16")
    return forms + [f"{form} compiled" for form in forms[1:] if is_compiled]


def jaxfood_works(
    pictures: dict[str, np.ndarray], model: str, stem: str, dtype: str, updates: int
) -> tuple[Work, Work]:
    """Some updates and one evaluation; the pictures lie on the device as bytes, as in jaxfood's training."""
    settings = [f"model.name={model}", "model.num_classes=11", f"data.image_size={pictures['image'].shape[1]}"]
    settings += [f"model.dtype={dtype}", *[f"model.stem={stem}"] * (model in ("resnet18", "resnet34"))]
    config = load_config(overrides=settings)
    variables = init_variables(config)
    state, sums = TrainState.create(config, variables, total_steps=1000), zero_sums(updates=True)
    batch = jax.device_put(pictures)
    size = len(pictures["label"])
    drawn = {
        "position": np.tile(np.arange(size, dtype=np.int32)[:, None], updates),
        "mask": np.ones((size, updates), np.float32),
    }
    update = jax.jit(functools.partial(add_updates, add=add_update), donate_argnums=(0, 1))
    logits = jax.jit(functools.partial(predict_logits, state.model))

    def train() -> None:
        nonlocal state, sums
        state, sums = update(state, sums, updates, batch, drawn)
        jax.block_until_ready(state)

    return train, lambda: logits(variables, batch["image"]).block_until_ready()


def torch_works(pictures: dict[str, np.ndarray], form: str, name: str, stem: str, updates: int) -> tuple[Work, Work]:
    """The notes' update and evaluation; the pictures are floats already, as the notes' loader gives them."""
    import torch
    import torch_reference

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if "channels_last" in form else torch.contiguous_format
    if name == "classifier":
        model: torch.nn.Module = torch_reference.Classifier(pictures["image"].shape[1])
    elif name == "resnet":
        model = torch_reference.ResNet()
    else:
        sys.path.append(str(Path(__file__).parents[2] / "tests" / "references"))
        import torch_resnet

        model = torch_resnet.ResNet(int(name.removeprefix("resnet")), 11, stem)
    model = model.to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=1e-5)
    images = pictures["image"].astype(np.float32) / 255
    images = torch_reference.to_torch_images(images).to(device, memory_format=layout)
    labels = torch.from_numpy(pictures["label"]).long().to(device)
    if "compiled" in form:
        model.compile()

    autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled="bfloat16" in form)

    def train() -> None:
        for _ in range(updates):
            with autocast():
                torch_reference.train_step(model, optimizer, images, labels)[0].item()

    @torch.no_grad()
    def evaluate() -> None:
        model.eval()
        with autocast():
            model(images).cpu()

    return train, evaluate


if __name__ == "__main__":
    main()
