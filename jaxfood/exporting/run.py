"""A run as an exported file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxfood.exporting.files import files_of, format_of, sidecar_of, write
from jaxfood.exporting.trained import Trained, describe, load_trained


class Exported(NamedTuple):
    """What was written.

    Attributes:
        trained: the classifier.
        format: its name.
        files: all of them, the exported one last.
        size: of the exported one, in bytes.
        notes: what is to be said of it.
    """

    trained: Trained
    format: str
    files: list[Path]
    size: int
    notes: list[str]


def export_run(run: Path, file: Path, which: str | int = "best") -> Exported:
    """Write a run's classifier to a file, in the format of its suffix, in place of what is there.

    Args:
        run: its work directory.
        file: the new file.
        which: the checkpoint: "best", "last" or a step.

    Raises:
        UserError: no run or several, no such checkpoint, weights that no file can hold, an unknown suffix, or the file
            cannot be written.
    """
    encode = encoder_of(file)
    trained = load_trained(run, which)
    content = encode(trained)
    write(file, content, describe(trained))
    return Exported(trained, format_of(file).name, files_of(file), len(content), _notes(trained, file))


def _notes(trained: Trained, file: Path) -> list[str]:
    notes = []
    if (dtype := trained.config.model.dtype) != "float32":
        notes.append(f"computes in float32, where the run does in {dtype}: answers differ by what that rounds")
    if format_of(file).has_sidecar:
        notes.append(f"classes, resizing and scaling stand in {sidecar_of(file)}")
    return notes


def encoder_of(file: Path) -> Callable[[Trained], bytes]:
    """What makes the content of a file with this suffix."""
    if format_of(file).name == "ONNX":
        from jaxfood.exporting.onnx_networks import to_onnx

        return to_onnx
    from jaxfood.exporting.stablehlo import to_stablehlo

    return to_stablehlo
