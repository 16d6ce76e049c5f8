"""Drawn demo pictures, so that the first command needs no download: the homework's folders, eleven groups of food.

660 pictures to train on, 220 to validate, 110 without labels to predict, in the layout and under the names of the
homework. A group shows in its shape; colour, place, turn, light, plate and table vary in all groups.

Measured on `valid`, where chance is 0.09: the nearest class mean gets 0.13 right by the average colour and 0.30 by the
raw pixels at 16 px; five convolution blocks (32 to 256 channels, batch norm, Adam 3e-4, batch 32, 64 px) get 0.98 to
0.99 after 8 epochs. So a broken network shows.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from jaxfood import processes
from jaxfood.data.cache_folder import cache_folder, is_abandoned, sync_folder, temporary_name, writing_to
from jaxfood.data.demo_drawings import GROUPS, Sketch, disc, random_colour, shaded, varied
from jaxfood.data.threads import map_in_threads
from jaxfood.files import move

# The version in the name: raise it when the pictures change, so that nobody measures with old ones.
DEMO_NAME = "demo-v1"
FOOD11_CLASSES = tuple(group.name for group in GROUPS)

_SEED = 6666  # the notes' seed
_PICTURES_A_CLASS = {"train": 60, "valid": 20, "test": 10}


def demo_root(cache_dir: str | Path = "") -> Path:
    """The folder of the demo pictures below `cache_dir` (by default the cache), drawn at the first call.

    It holds `train/LABEL_NUMBER.jpg`, `valid/LABEL_NUMBER.jpg`, `test/NUMBER.jpg` (unlabelled) and `classes.txt`, whole
    or not at all. The same Pillow and NumPy draw the same bytes.

    Raises:
        UserError: the cache folder cannot be written to.
    """
    root = cache_folder(cache_dir) / DEMO_NAME
    processes.first_then_all(lambda: _draw_once(root), root.parent)
    return root


def _draw_once(root: Path) -> None:
    unfinished = root.with_name(temporary_name(DEMO_NAME))
    with writing_to(root.parent):
        if root.is_dir():
            return
        for leftover in root.parent.glob(f"{DEMO_NAME}~*.tmp"):
            if is_abandoned(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        try:
            _draw_all(unfinished)
            move(unfinished, root)
            sync_folder(root.parent)
        except OSError:
            if not root.is_dir():  # otherwise another process was faster, and its pictures are the same
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _draw_all(root: Path) -> None:
    for split in _PICTURES_A_CLASS:
        (root / split).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in FOOD11_CLASSES), encoding="utf-8")

    def save(picture: tuple[str, tuple[str, int, int]]) -> None:
        name, which = picture
        with (root / name).open("wb") as file:
            draw_picture(*which).save(file, "JPEG", quality=85)
            file.flush()
            os.fsync(file.fileno())

    with closing(map_in_threads(save, _list_pictures())) as saved:
        for _ in saved:
            pass


def _list_pictures() -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yields the name of each file below the root, and what is drawn in it: split, label and number."""
    for split, count in _PICTURES_A_CLASS.items():
        drawn = [(split, label, number) for label in range(len(GROUPS)) for number in range(count)]
        names = [f"{label}_{number}" for _, label, number in drawn]
        if split == "test":
            names = [f"{place + 1:04d}" for place in np.random.default_rng(_SEED).permutation(len(drawn))]
        yield from zip((f"{split}/{name}.jpg" for name in names), drawn, strict=True)


def draw_picture(split: str, label: int, number: int) -> Image.Image:
    """Draws one demo picture, RGB, 96 to 140 pixels wide and 96 to 112 high; its arguments are its seed."""
    rng = np.random.default_rng([_SEED, list(_PICTURES_A_CLASS).index(split), label, number])
    width, height = int(rng.integers(96, 141)), int(rng.integers(96, 113))
    picture = _draw_table(rng, width, height)
    side = rng.uniform(0.88, 1.0) * min(width, height)
    margin = np.array([width, height]) - side
    x, y = (margin * rng.uniform(0, 1, 2)).tolist()
    turn = rng.normal(0, 0.14)
    if rng.random() < 0.4:
        _lay(picture, _draw_plate(rng), side * 1.12, x - 0.06 * side, y - 0.06 * side)
    _lay(picture, _draw_food(rng, label, turn), side, x, y)
    return _light(rng, picture)


def _draw_food(rng: np.random.Generator, label: int, turn: float) -> Image.Image:
    group = GROUPS[label]
    natural = varied(group.colours[rng.integers(len(group.colours))], rng)
    sketch = Sketch(turn)
    group.draw(sketch, rng, natural if rng.random() < 0.8 else random_colour(rng))
    return sketch.image


def _draw_plate(rng: np.random.Generator) -> Image.Image:
    plate, sketch = shaded(random_colour(rng), 1.7), Sketch(turn=0)
    for r, factor in ((0.98, 0.75), (0.95, 1.0), (0.72, 0.9), (0.69, 1.1)):
        sketch.fill(disc(0, 0, r), shaded(plate, factor))
    return sketch.image


def _lay(picture: Image.Image, thing: Image.Image, side: float, x: float, y: float) -> None:
    """Pastes a square drawing, `side` pixels wide, at (x, y), with its shadow."""
    small = thing.resize((round(side), round(side)), Image.Resampling.BOX)
    shadow = small.getchannel("A").point(lambda alpha: alpha * 0.45).filter(ImageFilter.BoxBlur(2))
    picture.paste((20, 16, 16), (round(x) + 3, round(y) + 4), shadow)
    picture.paste(small, (round(x), round(y)), small)


def _draw_table(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A table top: plain, wooden, checked or speckled, in two random colours."""
    # Paler than food, as tables are.
    first = 0.4 * np.array(random_colour(rng)) + rng.uniform(70, 140)
    second = 0.8 * first + 0.2 * np.array(random_colour(rng))
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(7, 16)
    rows, columns = np.mgrid[:height, :width]
    along = (columns * np.cos(angle) + rows * np.sin(angle)) / pitch
    across = (rows * np.cos(angle) - columns * np.sin(angle)) / pitch
    style = rng.integers(4)
    if style == 0:
        mix = (along - along.min()) / np.ptp(along)
    elif style == 1:
        mix = 0.5 + 0.5 * np.sin(4 * across + 0.8 * np.sin(0.7 * along) + rng.uniform(0, 6))
    elif style == 2:
        mix = 0.5 * (along % 2 < 1) + 0.5 * (across % 2 < 1)
    else:
        coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6), np.uint8))
        mix = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)) / 255
    colours = first + mix[..., None] * (second - first)
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


def _light(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Lights the picture from one side, tints it, and adds a camera's noise."""
    pixels = np.asarray(picture).astype(np.float32)
    rows, columns = np.linspace(-1, 1, picture.height), np.linspace(-1, 1, picture.width)
    slope_down, slope_right = rng.uniform(-0.15, 0.15, 2)
    brightness = rng.uniform(0.85, 1.1) + slope_down * rows[:, None] + slope_right * columns
    tint = rng.uniform(0.9, 1.1, 3)
    noise = rng.uniform(2, 7) * rng.standard_normal(pixels.shape, np.float32)
    lit = pixels * (brightness[..., None] * tint).astype(np.float32) + noise
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))
