"""Names as labels of pictures: in fonts that have their characters, and no longer than there is room."""

from collections.abc import Iterable
from typing import NamedTuple

from jaxfood.errors import printable, within_columns

_NOT_THERE = "□"
_DRAWS_NOTHING = "Last Resort"  # matplotlib's, which has a box for every character


class Labels(NamedTuple):
    """Texts, the font families to draw them in, of which each character takes the first that has it, and what is boxed.

    Attributes:
        texts: as they are to be drawn.
        families: for matplotlib's `fontfamily`.
        boxed: the characters that no font has, in which case the texts have a box.
    """

    texts: tuple[str, ...]
    families: list[str]
    boxed: tuple[str, ...]


def fit_labels(names: Iterable[object], width: int) -> Labels:
    """Names as labels of at most `width` columns, in which Chinese, Japanese and Korean characters take two.

    Characters that matplotlib's own font lacks are taken from the machine's fonts; what none of them has is a box.
    """
    texts = [within_columns(printable(name), width) for name in names]
    families, missing = _find_fonts({character for text in texts for character in text})
    boxed = str.maketrans(dict.fromkeys(missing, _NOT_THERE))
    return Labels(tuple(text.translate(boxed) for text in texts), families, tuple(sorted(missing)))


def _find_fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Font families that have these characters, and the characters that none has."""
    from matplotlib import font_manager

    default = font_manager.FontProperties().get_family()
    missing = characters - _drawn_by(font_manager.findfont(font_manager.FontProperties()), characters)
    families = list(default)
    for font in font_manager.fontManager.ttflist:
        if not missing:  # with Latin names alone no other font is opened
            break
        if font.name not in families and _DRAWS_NOTHING not in font.name and (has := _drawn_by(font.fname, missing)):
            families.append(font.name)
            missing -= has
    return families, missing


def _drawn_by(path: str, characters: set[str]) -> set[str]:
    """Those that a font can draw; none where its file cannot be read, as then matplotlib cannot draw with it."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        # Asked one by one: the whole table of a Chinese font takes a fifth of a second, and a machine has dozens.
        return {character for character in characters if font.get_char_index(ord(character))}
    except (OSError, RuntimeError):  # removed since the list was made; FreeType's complaint
        return set()
