"""Food-11 as a TFDS data set, made of the homework's folders; `jaxfood.data.tfds` prepares and reads it.

After https://www.tensorflow.org/datasets/add_dataset. Importing this module imports TFDS, and registers `food11` there.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxfood.data.demo import FOOD11_CLASSES
from jaxfood.data.index import PictureIndex, check_labels, index_pictures
from jaxfood.errors import UserError
from jaxfood.files import to_path
from jaxfood.places import is_folder

_SPLITS = ("train", "valid", "test")


class Food11(tfds.core.GeneratorBasedBuilder):
    """The splits train, valid and test; the label of a picture without one is -1.

    TFDS puts the pictures of a split in an order of its own (by a hash of the file names), so that a part of it such
    as `train[:10%]` has all classes.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is the homework's folder, which holds train/ and valid/."
    url_infos = None  # Nothing is downloaded. TFDS's own way to find that out needs importlib_resources.

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs of food in eleven groups, as the homework HW3 splits them.",
            homepage="https://www.epfl.ch/labs/mmspg/downloads/food-image-datasets/",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=FOOD11_CLASSES),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterable]:
        indexes = index_splits(to_path(dl_manager.manual_dir))
        return {split: self._generate_examples(index) for split, index in indexes.items()}

    def _generate_examples(self, index: PictureIndex) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, label in zip(index.paths, index.labels, strict=True):
            name = index.name(path)
            yield name, {"image": path, "label": int(label), "file_name": name}  # the file's bytes as they are


def index_splits(root: Path) -> dict[str, PictureIndex]:
    """The pictures of each of the homework's folders that there are, with labels but for those of test.

    Raises:
        UserError: no train or valid, no pictures in a folder, or a label that Food-11 does not have.
    """
    if missing := [split for split in ("train", "valid") if not is_folder(root / split)]:
        raise UserError(f"{root} has no folder {missing[0]}: name the homework's folder, which holds train and valid")
    indexes = {split: index_pictures(root / split, FOOD11_CLASSES) for split in _SPLITS if is_folder(root / split)}
    for split in ("train", "valid"):
        check_labels(indexes[split], len(FOOD11_CLASSES))
    return indexes
