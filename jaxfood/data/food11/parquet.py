"""Food-11 as Hugging Face keeps it: .parquet files with a picture's bytes and its label in a row."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from jaxfood.data.food11.archives import MAX_BYTES, MAX_FILE_BYTES, Member, plain_name
from jaxfood.data.walk import is_picture
from jaxfood.errors import UserError, shown
from jaxfood.extras import require
from jaxfood.files import reading

_ROWS = 64  # read at once


class ParquetSource:
    """One .parquet file of a data set of pictures, as `datasets` writes it: `image` (`bytes`, `path`) and `label`.

    A row is the file `LABEL_NUMBER.jpg` as the homework would have it, NUMBER counting the rows; one without a label
    has its own name, or `NUMBER.jpg`. The suffix is that of the row's own name, if it has one.
    """

    def __init__(self, path: Path, first: int = 0) -> None:
        require("pyarrow", f"reading {path.name}", extra="parquet")
        self.path = path
        self.passed_over: Counter[str] = Counter()
        self._first = first

    def rows(self) -> int:
        """How many there are."""
        with self._open() as file:
            return file.metadata.num_rows

    def class_names(self) -> list[str]:
        """The names of the labels, where the file tells them, else none."""
        with self._open() as file:
            told = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            names = json.loads(told)["info"]["features"]["label"]["names"]
        except (ValueError, KeyError, TypeError):
            return []
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []

    def members(self) -> list[Member]:
        """As `Source` has it; a row's share of all stands for its size."""
        with self._open() as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            if size > MAX_BYTES:
                raise UserError(f"{self.path} would take {size / 2**30:,.1f} GiB, more than {MAX_BYTES // 2**30} GiB")
            names = list(self._names(file))
        return [Member(name, size // max(1, len(names))) for name in names]

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[Member, bytes]]:
        """As `Source` has it."""
        names = set(wanted)
        with self._open() as file:
            of_rows = self._names(file)
            for batch in file.iter_batches(_ROWS, columns=["image.bytes"]):
                for content in (row["bytes"] for row in batch.column("image").to_pylist()):
                    name = next(of_rows)
                    if not content or len(content) > MAX_FILE_BYTES:
                        raise UserError(f"{self.path}: row {shown(name)} holds no picture: fetch the file again")
                    if name in names:
                        yield Member(name, len(content)), content

    def _names(self, file: Any) -> Iterator[str]:
        number = self._first
        columns = ["image.path", "label"] if "label" in file.schema_arrow.names else ["image.path"]
        for batch in file.iter_batches(1024, columns=columns):
            for row in batch.to_pylist():
                told = ((row["image"] or {}).get("path") or "").replace("\\", "/").rpartition("/")[2]
                own, label = PurePosixPath(plain_name(self.path, told)), row.get("label")
                suffix = own.suffix if is_picture(own.name) else ".jpg"
                if label is not None and (not isinstance(label, int) or label >= 0):
                    yield f"{label}_{number}{suffix}"
                else:
                    yield own.name if is_picture(own.name) else f"{number:04}{suffix}"
                number += 1

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow
        from pyarrow import parquet

        try:
            with reading(self.path), parquet.ParquetFile(self.path) as file:
                self._check(file)
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            first = str(error).partition("\n")[0][:200]
            raise UserError(f"{self.path} is no whole .parquet file ({first}): fetch it again") from error

    def _check(self, file: Any) -> None:
        """Check that the columns are those of pictures."""
        import pyarrow

        schema = file.schema_arrow
        image = schema.field("image").type if "image" in schema.names else None
        inner = (
            {field.name: field.type for field in image} if image is not None and pyarrow.types.is_struct(image) else {}
        )
        if not {"bytes", "path"} <= inner.keys():
            raise UserError(f"{self.path}: no column image with bytes and path, but {', '.join(schema.names)}")
        if "label" in schema.names and not pyarrow.types.is_integer(schema.field("label").type):
            raise UserError(f"{self.path}: its column label holds {schema.field('label').type}, not integers")
