"""Images per second of jaxfood and of PyTorch as in the notes, on this machine.

    python scripts/benchmarks/step.py [--model classifier] [--batch_size 64] [--image_size 128] [--steps 7] [--compile]

Training is the whole update: forward, backward, clipping, Adam (3e-4, L2 1e-5), float32. All run in one process and
take turns step by step; the median of the steps is printed, after a warm-up that compiles. Pictures are random.

`--model resnet18` (or resnet34) is torchvision's with the stem for small pictures, `--stem imagenet` with its own.

With `--compile` PyTorch also runs in the memory format channels_last, eagerly and by `torch.compile`, which needs a C++
compiler and about a minute before the first step.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
from measuring import Parser, Work, in_turns, need_torch, print_setting, print_table, random_pictures

from jaxfood import TrainState, load_config, train_step
from jaxfood.model.networks import init_variables, predict_logits


def main() -> None:
    parser = Parser(__doc__)
    parser.add_numbers(batch_size=64, image_size=128, steps=7)
    parser.add_argument("--model", default="classifier", choices=("classifier", "resnet18", "resnet34"))
    parser.add_argument("--stem", default="small", choices=("small", "imagenet"), help="of a residual network")
    parser.add_argument("--compile", action="store_true", help="compare with channels_last and torch.compile too")
    arguments = parser.parse_args()
    need_torch()

    pictures = random_pictures(arguments.batch_size, arguments.image_size)
    forms = ("eager", "channels_last", "compiled channels_last") if arguments.compile else ("eager",)
    works = jaxfood_works(pictures, arguments.model, arguments.stem)
    for form in forms:
        works |= torch_works(pictures, form, arguments.model, arguments.stem)
    medians = in_turns(works, arguments.steps, warm_up=2)
    rates = {name: arguments.batch_size / seconds.clock for name, seconds in medians.items()}

    network = arguments.model if arguments.model == "classifier" else f"{arguments.model}, stem {arguments.stem}"
    size = f"{network}, batch {arguments.batch_size}, {arguments.image_size} px"
    print_setting(f"{size}, float32, median of {arguments.steps} steps\n")
    rows = []
    for kind in ("training", "evaluation"):
        ours, theirs = rates[f"jaxfood {kind}"], [rates[f"{form} {kind}"] for form in forms]
        rows.append([kind, f"{ours:.1f}", *(cell for rate in theirs for cell in (f"{rate:.1f}", f"{ours / rate:.2f}"))])
    print_table(("images/s", "jaxfood", *(cell for form in forms for cell in (f"PyTorch {form}", "ratio"))), rows)


def jaxfood_works(pictures: dict[str, np.ndarray], model: str, stem: str) -> dict[str, Work]:
    """One update and one evaluation; the pictures lie on the device as bytes, as in jaxfood's training."""
    settings = [f"model.name={model}", "model.num_classes=11", f"data.image_size={pictures['image'].shape[1]}"]
    settings += [f"model.stem={stem}"] * (model != "classifier")
    config = load_config(overrides=settings)
    variables = init_variables(config)
    state = TrainState.create(config, variables, total_steps=1000)
    batch = jax.device_put(pictures)
    logits = jax.jit(functools.partial(predict_logits, state.model))

    def train() -> None:
        nonlocal state
        state, _ = train_step(state, batch)
        jax.block_until_ready(state)

    return {
        "jaxfood training": train,
        "jaxfood evaluation": lambda: logits(variables, batch["image"]).block_until_ready(),
    }


def torch_works(pictures: dict[str, np.ndarray], form: str, name: str, stem: str) -> dict[str, Work]:
    """The notes' update and evaluation; the pictures are floats already, as the notes' loader gives them."""
    import torch
    import torch_reference

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if "channels_last" in form else torch.contiguous_format
    if name == "classifier":
        model: torch.nn.Module = torch_reference.Classifier(pictures["image"].shape[1])
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

    @torch.no_grad()
    def evaluate() -> None:
        model.eval()
        model(images).cpu()

    return {
        f"{form} training": lambda: torch_reference.train_step(model, optimizer, images, labels)[0].item(),
        f"{form} evaluation": evaluate,
    }


if __name__ == "__main__":
    main()
