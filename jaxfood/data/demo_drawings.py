"""The eleven drawings of the demo pictures: each group of food has a shape of its own, and its colour tells little.

A drawing fills most of the square from -1 to 1 (x to the right, y down); `jaxfood.data.demo` lays the table around it.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

CREAM, GOLDEN, YELLOW, ORANGE = (244, 230, 194), (222, 168, 90), (250, 206, 76), (236, 140, 50)
RED, PINK, PURPLE, BROWN = (200, 58, 48), (240, 160, 170), (126, 74, 124), (152, 94, 52)
CHOCOLATE, GREEN, WHITE, GREY_BLUE = (92, 56, 40), (104, 150, 62), (250, 246, 238), (150, 174, 190)
_COLOURS = (CREAM, GOLDEN, YELLOW, ORANGE, RED, PINK, PURPLE, BROWN, CHOCOLATE, GREEN, WHITE, GREY_BLUE)


def random_colour(rng: np.random.Generator) -> Colour:
    """One of the colours of food, varied a little."""
    return varied(_COLOURS[rng.integers(len(_COLOURS))], rng)


def varied(colour: Colour, rng: np.random.Generator) -> Colour:
    return _colour(np.array(colour) + rng.normal(0, 14, 3))


def shaded(colour: Colour, factor: float) -> Colour:
    """Darker for factors below 1; above, lighter."""
    towards = 0 if factor < 1 else 255
    return _colour(towards + (np.array(colour) - towards) * (factor if factor < 1 else 2 - factor))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def _polar(angles: float | np.ndarray, across: float | np.ndarray, down: float | np.ndarray) -> np.ndarray:
    return np.stack((across * np.cos(angles), down * np.sin(angles)), axis=-1)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


class Sketch:
    """A transparent square to draw on, from -1 to 1, turned by `turn` radians; shapes are arrays of points [K, 2]."""

    SIDE = 160

    def __init__(self, turn: float) -> None:
        self.turn = turn
        self.image = Image.new("RGBA", (self.SIDE, self.SIDE))
        self._draw = ImageDraw.Draw(self.image)

    def fill(self, points: np.ndarray, colour: Colour, edge: Colour | None = None, width: float = 0.05) -> None:
        """Fills a closed shape; `edge` draws its outline too."""
        self._draw.polygon(self._pixels(points), fill=colour)
        if edge:
            self.line(np.concatenate((points, points[:2])), edge, width)

    def line(self, points: np.ndarray, colour: Colour, width: float = 0.05) -> None:
        self._draw.line(self._pixels(points), fill=colour, width=max(1, round(width * self.SIDE / 2)), joint="curve")

    def _pixels(self, points: np.ndarray) -> list[float]:
        return list(((turned(points, self.turn) + 1) * (self.SIDE / 2)).ravel())


def oval(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """An ellipse about (x, y), turned by `turn` radians: [36, 2]."""
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    return turned(_polar(angles, rx, ry), turn) + (x, y)


def disc(x: float, y: float, r: float) -> np.ndarray:
    return oval(x, y, r, r)


def blob(rng: np.random.Generator, r: float, roughness: float) -> np.ndarray:
    """A closed wobbly line about the origin: [48, 2]."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = [rng.normal(0, roughness) * np.sin(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)]
    radius = r * (1 + np.clip(sum(waves), -0.35, 0.35))
    return _polar(angles, radius, radius)


def dash(rng: np.random.Generator, x: float, y: float, half: float) -> np.ndarray:
    """A short line through (x, y) in a random direction: [2, 2]."""
    end = _polar(rng.uniform(0, np.pi), half, half)
    return np.array([(x, y) - end, (x, y) + end])


def scattered(rng: np.random.Generator, count: int, r: float) -> np.ndarray:
    """Points spread evenly over the disc of radius r: [count, 2]."""
    angles, radii = rng.uniform(0, 2 * np.pi, count), r * np.sqrt(rng.uniform(0, 1, count))
    return _polar(angles, radii, radii)


def draw_bread(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A loaf with slashes."""
    height = rng.uniform(0.42, 0.62)
    sketch.fill(oval(0, 0, 0.95, height), colour, shaded(colour, 0.6), 0.07)
    sketch.fill(oval(0, -0.12 * height, 0.8, 0.72 * height), shaded(colour, 1.2))
    count, slant = int(rng.integers(4, 7)), rng.uniform(0.12, 0.3)
    for x in np.linspace(-0.58, 0.58, count):
        half = 0.62 * height * np.sqrt(1 - x**2)
        slash = oval(x, 0, 0.055, half, slant)
        sketch.fill(slash, shaded(colour, 1.7), shaded(colour, 0.55), 0.03)


def draw_dairy(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A wedge of cheese with holes, or a glass of milk."""
    draw = _draw_cheese if rng.random() < 0.65 else _draw_glass
    draw(sketch, rng, colour)


def _draw_cheese(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    tip, top, depth = -0.95, rng.uniform(-0.6, -0.4), rng.uniform(0.6, 0.8)
    edge = shaded(colour, 0.55)
    front = np.array([(tip, 0.05), (0.9, 0.05), (0.9, 0.05 + depth), (tip, 0.05 + depth)])
    sketch.fill(np.array([(tip, 0.05), (0.45, top), (0.9, 0.05)]), shaded(colour, 1.4), edge)
    sketch.fill(front, colour, edge)
    for x in (-0.68, -0.2, 0.25, 0.68):
        y, r = 0.05 + depth * rng.uniform(0.25, 0.75), rng.uniform(0.08, 0.15)
        sketch.fill(disc(x + rng.uniform(-0.06, 0.06), y, r), shaded(colour, 0.62))
    sketch.fill(oval(0.3, 0.4 * top, 0.17, 0.08), shaded(colour, 0.8))


def _draw_glass(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    glass, edge, level = (222, 232, 238), (140, 156, 168), rng.uniform(-0.5, -0.2)
    wide, narrow = 0.55, rng.uniform(0.36, 0.46)
    at_level = wide - (wide - narrow) * (level + 0.85) / 1.7
    sketch.fill(np.array([(-wide, -0.85), (wide, -0.85), (narrow, 0.85), (-narrow, 0.85)]), glass, edge)
    sketch.fill(np.array([(-at_level, level), (at_level, level), (narrow, 0.82), (-narrow, 0.82)]), colour)
    sketch.fill(oval(0, level, at_level, 0.12), shaded(colour, 1.5), shaded(colour, 0.7), 0.03)
    sketch.fill(oval(0, -0.85, wide, 0.1), shaded(glass, 1.5), edge)
    sketch.line(np.array([(-0.3, -0.1), (-0.25, 0.65)]), shaded(colour, 1.7), 0.07)


def draw_dessert(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A doughnut with sprinkles, or a slice of layer cake with a cherry."""
    draw = _draw_doughnut if rng.random() < 0.5 else _draw_cake
    draw(sketch, rng, colour)


def _draw_doughnut(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    dough, hole = varied(GOLDEN, rng), rng.uniform(0.22, 0.3)
    sketch.fill(disc(0, 0, 0.92), dough, shaded(dough, 0.6))
    sketch.fill(blob(rng, 0.8, 0.025), colour)
    for x, y in scattered(rng, 45, 0.72):
        sketch.line(dash(rng, x, y, 0.06), random_colour(rng), 0.045)
    sketch.fill(disc(0, 0, hole + 0.07), dough)
    sketch.fill(disc(0, 0, hole), (70, 56, 48))


def _draw_cake(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    cream, layers = shaded(random_colour(rng), 1.6), int(rng.integers(2, 4))
    edges = np.linspace(-0.25, 0.85, 2 * layers + 1)
    for number, (top, bottom) in enumerate(pairwise(edges)):
        box = np.array([(-0.85, top), (0.85, top), (0.85, bottom), (-0.85, bottom)])
        sketch.fill(box, cream if number % 2 else colour)
    sketch.fill(np.array([(-0.9, -0.2), (-0.55, -0.55), (0.55, -0.55), (0.9, -0.2)]), cream, shaded(cream, 0.75))
    for x in np.linspace(-0.72, 0.72, 5):
        sketch.fill(oval(x, -0.15, 0.16, rng.uniform(0.12, 0.24)), cream)
    cherry = varied(RED, rng)
    sketch.line(np.array([(0, -0.7), (0.08, -0.9), (0.2, -0.98)]), (90, 110, 50), 0.04)
    sketch.fill(disc(0, -0.62, 0.2), cherry, shaded(cherry, 0.6), 0.03)


def draw_egg(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A fried egg: a wobbly white and a round yolk."""
    white = varied(shaded(random_colour(rng), 1.75), rng)
    outline = blob(rng, 0.82, 0.07)
    sketch.fill(outline, shaded(white, 0.72))
    sketch.fill(outline * 0.93, white)
    x, y, r = rng.uniform((-0.18, -0.18, 0.3), (0.18, 0.18, 0.38))
    sketch.fill(disc(x, y, r), colour, shaded(colour, 0.7), 0.04)
    sketch.fill(oval(x - 0.35 * r, y - 0.35 * r, 0.28 * r, 0.18 * r, -0.7), shaded(colour, 1.8))


def draw_fried_food(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A bundle of thin sticks, some of them in a paper bag."""
    count = int(rng.integers(9, 14))
    for x in rng.permutation(np.linspace(-0.6, 0.6, count)):
        lean, top = 0.45 * x + rng.normal(0, 0.1), rng.uniform(-0.95, -0.6)
        stick = np.array([(x + lean, top), (0.8 * x, rng.uniform(0.55, 0.85))])
        sketch.line(stick, shaded(colour, 0.55), 0.17)
        sketch.line(stick, shaded(colour, rng.uniform(0.95, 1.35)), 0.11)
    if rng.random() < 0.5:
        bag = random_colour(rng)
        sketch.fill(np.array([(-0.78, 0.1), (-0.5, 0.22), (0.5, 0.22), (0.78, 0.1), (0.55, 0.95), (-0.55, 0.95)]), bag)


def draw_meat(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A steak: rim of fat, marbling, bone."""
    outline = blob(rng, 0.82, 0.05) * (1.1, 0.9)
    fat = shaded(varied(CREAM, rng), 1.2)
    sketch.fill(outline, fat, shaded(colour, 0.5), 0.04)
    sketch.fill(outline * 0.86, colour)
    for x, y in scattered(rng, 11, 0.55):
        steps = np.cumsum(rng.normal(0, 0.07, (5, 2)), axis=0)
        sketch.line(np.clip(steps + (x, y), -0.62, 0.62), shaded(colour, 1.6), 0.035)
    x, y = rng.uniform(-0.3, 0.3), rng.uniform(-0.25, 0.1)
    bone = np.array([(x - 0.32, y), (x + 0.32, y), (x, y), (x + rng.uniform(-0.08, 0.08), y + 0.5)])
    sketch.line(bone, shaded(colour, 0.55), 0.24)
    sketch.line(bone, fat, 0.16)


def draw_noodles(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """Many long wavy strands."""
    along = np.linspace(-1, 1, 26)
    sketch.fill(blob(rng, 0.82, 0.03), shaded(colour, 0.6))
    for offset in np.linspace(-0.68, 0.68, 13):
        half = np.sqrt(0.86**2 - offset**2)
        waves = 0.09 * np.sin(rng.uniform(7, 10) * along * half + rng.uniform(0, 2 * np.pi))
        strand = np.stack((half * along, offset + waves + rng.normal(0, 0.02)), axis=1)
        sketch.line(strand, shaded(colour, 0.5), 0.125)
        sketch.line(strand, shaded(colour, rng.uniform(1.0, 1.4)), 0.075)


def draw_rice(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A bowl seen from the side, heaped with tiny grains."""
    grain, bowl, height = shaded(colour, 1.45), random_colour(rng), rng.uniform(0.55, 0.8)
    angles = np.linspace(np.pi, 2 * np.pi, 24)
    sketch.fill(_polar(angles, 0.78, height), shaded(grain, 0.8))
    for x, y in scattered(rng, 110, 1):
        shade = rng.choice([0.6, 1.3, 1.8])
        sketch.line(dash(rng, 0.76 * x, -height * abs(y), 0.05), shaded(grain, shade), 0.045)
    sketch.fill(_polar(angles, 0.92, -0.8), bowl, shaded(bowl, 0.6), 0.05)
    sketch.line(np.array([(-0.8, 0.2), (0.8, 0.2)]), shaded(bowl, 1.6), 0.07)
    sketch.fill(np.array([(-0.35, 0.75), (0.35, 0.75), (0.4, 0.92), (-0.4, 0.92)]), shaded(bowl, 0.7))


def draw_seafood(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A fish: body, tail, fins, scales, eye."""
    side, height = rng.choice([-1, 1]), rng.uniform(0.34, 0.46)
    mirror, dark = np.array([side, 1.0]), shaded(colour, 0.6)
    sketch.fill(np.array([(0.45, 0), (0.95, -0.45), (0.82, 0), (0.95, 0.45)]) * mirror, shaded(colour, 0.8), dark)
    sketch.fill(np.array([(-0.3, -0.9 * height), (0.1, -1.6 * height), (0.3, -0.6 * height)]) * mirror, dark)
    sketch.fill(np.array([(-0.1, 0.8 * height), (0.15, 1.4 * height), (0.25, 0.6 * height)]) * mirror, dark)
    sketch.fill(oval(-0.15, 0, 0.78, height) * mirror, colour, dark)
    sketch.fill(oval(-0.15, 0.45 * height, 0.6, 0.38 * height) * mirror, shaded(colour, 1.4))
    bend = np.linspace(-1, 1, 7)
    for x in np.linspace(-0.3, 0.4, 5):
        reach = 0.6 * height * np.sqrt(1 - ((x + 0.15) / 0.8) ** 2)
        sketch.line(np.stack((x + 0.1 * (1 - bend**2), reach * bend), axis=1) * mirror, dark, 0.04)
    sketch.fill(disc(-0.66, -0.1, 0.1) * mirror, WHITE, dark, 0.03)
    sketch.fill(disc(-0.67, -0.1, 0.05) * mirror, (24, 22, 26))


def draw_soup(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A bowl seen from above: rims, drops of fat, steam."""
    bowl = random_colour(rng)
    for r, factor in ((0.95, 0.65), (0.91, 1.3), (0.78, 0.75), (0.73, 1.6)):
        sketch.fill(disc(0, 0, r), shaded(bowl, factor))
    sketch.fill(disc(0, 0, 0.68), colour, shaded(colour, 0.75), 0.04)
    for x, y in scattered(rng, int(rng.integers(5, 10)), 0.52):
        sketch.fill(disc(x, y, rng.uniform(0.04, 0.08)), shaded(colour, 1.35), shaded(colour, 0.8), 0.02)
    rise = np.linspace(0.3, -0.95, 22)
    for x in (-0.28, 0.0, 0.28):
        waves = 0.07 * np.sin(7 * rise + rng.uniform(0, 2 * np.pi))
        sketch.line(np.stack((x + waves, rise + rng.uniform(0, 0.2)), axis=1), (238, 238, 238), 0.055)


def draw_vegetables(sketch: Sketch, rng: np.random.Generator, colour: Colour) -> None:
    """A heap of round fruits with stems and leaves."""
    count, turn = int(rng.integers(3, 6)), rng.uniform(0, 2 * np.pi)
    for angle in turn + np.linspace(0, 2 * np.pi, count, endpoint=False):
        x, y = 0.5 * np.cos(angle), 0.5 * np.sin(angle)
        r, skin, leaf = rng.uniform(0.34, 0.42), varied(colour, rng), varied(GREEN, rng)
        sketch.fill(disc(x, y, r), skin, shaded(skin, 0.55))
        sketch.fill(disc(x - 0.3 * r, y + 0.1 * r, 0.22 * r), shaded(skin, 1.6))
        sketch.fill(oval(x + 0.16, y - r - 0.02, 0.17, 0.075, rng.uniform(-0.7, 0.1)), leaf, shaded(leaf, 0.6), 0.02)
        sketch.line(np.array([(x, y - 0.75 * r), (x + 0.02, y - r - 0.1)]), (86, 66, 40), 0.06)


class Group(NamedTuple):
    """One of Food-11's groups: its drawing, and the colours that such food tends to have."""

    name: str
    draw: Callable[[Sketch, np.random.Generator, Colour], None]
    colours: tuple[Colour, ...]


GROUPS = (
    Group("Bread", draw_bread, (GOLDEN, BROWN, CREAM)),
    Group("Dairy product", draw_dairy, (YELLOW, CREAM, WHITE)),
    Group("Dessert", draw_dessert, (PINK, CHOCOLATE, YELLOW)),
    Group("Egg", draw_egg, (YELLOW, ORANGE)),
    Group("Fried food", draw_fried_food, (GOLDEN, YELLOW, BROWN)),
    Group("Meat", draw_meat, (RED, BROWN, PINK)),
    Group("Noodles/Pasta", draw_noodles, (YELLOW, CREAM, ORANGE)),
    Group("Rice", draw_rice, (WHITE, CREAM, GOLDEN)),
    Group("Seafood", draw_seafood, (GREY_BLUE, ORANGE, PINK)),
    Group("Soup", draw_soup, (ORANGE, RED, GREEN)),
    Group("Vegetable/Fruit", draw_vegetables, (RED, GREEN, ORANGE, PURPLE)),
)
