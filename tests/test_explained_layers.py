"""Layers explained: filters as pictures, what they look for, layers as maps; and all figures of trained runs."""

import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxfood.config.sections import Config
from jaxfood.data.index import index_pictures
from jaxfood.data.pictures import Pictures
from jaxfood.evaluation.explanations import explain, explaining, layer_figures
from jaxfood.evaluation.explanations.drawing import canvas
from jaxfood.evaluation.explanations.embedding import (
    average_cells,
    choose_method,
    embed,
    layer_features,
    neighbour_agreement,
    principal_components,
)
from jaxfood.evaluation.explanations.features import features
from jaxfood.evaluation.explanations.filters import first_filters, maximise, telling_channels, top_pictures
from jaxfood.evaluation.explanations.scores import PART
from jaxfood.evaluation.explanations.sheets import Explanations, RowLabel, draw_sheets
from jaxfood.model.network import Network
from jaxfood.model.resnet import ResNet
from jaxfood.report.figures import Figure

SIDE = 32


@pytest.fixture(scope="module")
def network() -> tuple[Network, dict[str, Any]]:
    model = ResNet(num_classes=3, width=4, blocks=(0,), fused=False)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))


def draw(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def test_the_first_filters_are_what_the_first_layer_computes(network: tuple[Network, dict[str, Any]]) -> None:
    model, variables = network
    filters = first_filters(model, variables, SIDE)
    assert filters.shape == (4, 6, 6, 3)  # 3x3 of squares of 2x2 pixels
    image = np.random.default_rng(1).random((1, SIDE, SIDE, 3)).astype(np.float32)
    seen = np.asarray(features(model, variables, image, "stem").layer)[0]
    # At row 5, column 7 of the halved picture: pixels from two before twice that.
    by_hand = (filters * image[0, 8:14, 12:18]).sum((1, 2, 3))
    np.testing.assert_allclose(seen[5, 7], by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_ascent_finds_what_a_filter_looks_for(network: tuple[Network, dict[str, Any]]) -> None:
    model, variables = network
    channels = np.array([1, 6])
    before = maximise(model, variables, "stage1", channels, SIDE, steps=0)
    after = maximise(model, variables, "stage1", channels, SIDE, steps=20)
    pictures = layer_features(model, variables, draw(8), "stage1").channels[:, channels]
    assert (after.activations > before.activations).all()
    assert (after.activations > pictures.max(0)).all()
    assert 0 <= after.images.min() < after.images.max() <= 1
    again = maximise(model, variables, "stage1", channels, SIDE, steps=20)
    np.testing.assert_array_equal(again.images, after.images)
    found = np.asarray(features(model, variables, after.images, "stage1").layer).mean((1, 2))
    np.testing.assert_allclose(after.activations, found[[0, 1], channels], rtol=1e-5)


def test_channels_that_tell_pictures_apart() -> None:
    means = np.array([[5.0, 0, 1, 9], [5, 4, 2, 10], [5, 0, 3, 11]])
    assert telling_channels(means, 3).tolist() == [1, 2, 3]
    assert telling_channels(means, 1).tolist() == [1]
    assert telling_channels(means[:1], 3).tolist() == []
    assert top_pictures(means, np.array([1, 3]), 2).tolist() == [[1, 0], [2, 1]]


def test_features_of_many_pictures_are_those_of_each(network: tuple[Network, dict[str, Any]]) -> None:
    model, variables = network
    images = draw(PART + 2)
    found = layer_features(model, variables, images, "stage1")
    direct = features(model, variables, images / np.float32(255), "stage1")
    layer = np.asarray(direct.layer)
    assert found.layer.shape == (PART + 2, 16 * layer.shape[-1])
    np.testing.assert_allclose(found.channels, layer.mean((1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.hidden, direct.hidden, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.answers, np.asarray(direct.logits).argmax(1))


def test_cells_are_means() -> None:
    values = np.arange(2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    cells = average_cells(values)
    assert cells.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(cells[1, 2, 3], values[1, 4:6, 6:8].mean((0, 1)))
    np.testing.assert_array_equal(average_cells(values[:, :6]), values[:, :6])


def test_principal_components_are_those_of_the_covariance() -> None:
    values = np.random.default_rng(0).standard_normal((12, 5)) * [5, 3, 1, 0.5, 0.1]
    found = principal_components(values, 3)
    variances = np.sort(np.linalg.eigvalsh(np.cov(values.T)))[::-1]
    np.testing.assert_allclose(found.var(0, ddof=1), variances[:3])
    np.testing.assert_allclose(np.corrcoef(found.T), np.eye(3), atol=1e-9)
    np.testing.assert_array_equal(principal_components(values[:2], 3)[:, 2], 0)


@pytest.mark.slow
def test_maps_keep_neighbours_and_come_out_the_same() -> None:
    labels = np.repeat([0, 1, 2], 8)
    rng = np.random.default_rng(0)
    values = 9 * np.eye(3)[labels] @ rng.standard_normal((3, 20)) + 0.1 * rng.standard_normal((24, 20))
    places = embed(values)
    np.testing.assert_array_equal(embed(values), places)
    assert neighbour_agreement(places, labels) == neighbour_agreement(values, labels) == 1


def test_the_way_to_embed() -> None:
    values = np.random.default_rng(0).standard_normal((12, 5))
    np.testing.assert_array_equal(embed(values, method="PCA"), principal_components(values, 2))
    assert [choose_method(count) for count in (3, 9, 10)] == ["PCA", "PCA", "t-SNE"]
    assert neighbour_agreement(np.array([[0.0], [1], [2.5]]), np.array([0, 0, 1])) == pytest.approx(2 / 3)


def sizes(figures: list[Figure]) -> dict[str, tuple[int, int]]:
    found = {}
    for figure in figures:
        with Image.open(io.BytesIO(figure.png)) as picture:
            found[figure.name] = picture.size
    return found


@pytest.mark.slow
def test_sheets_have_a_row_for_each_picture() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((5, SIDE, SIDE, 3)).astype(np.float32)
    maps = {field.name: rng.standard_normal((5, SIDE, SIDE)) for field in dataclasses.fields(Explanations)}
    found = Explanations(**{**maps, "gap": np.full(5, 0.01), "lime_r2": np.linspace(0.5, 0.9, 5)})
    labels = [RowLabel(f"{n}.jpg", "Bread 食べ物 $x$" * n, 0.5, "" if n else "Soup") for n in range(5)]
    figures = draw_sheets(images, labels, found, "Said.")
    assert [figure.title for figure in figures] == ["Why these answers (1 of 2)", "Why these answers (2 of 2)"]
    assert "explain 50% to 80% of" in figures[0].caption
    assert figures[0].caption.endswith("Said.")
    assert figures[1].alt.startswith("4.jpg: answered Bread")
    (width, height), (other_width, other_height) = sizes(figures).values()
    assert width == other_width
    assert height > 2 * other_height


def test_the_page_behind_is_white_as_the_picture_is() -> None:
    with canvas(3, 2) as drawn:
        drawn.panel(0.5, 0.5, 1, np.random.default_rng(0).random((64, 64, 3)) ** 0.1)
    with Image.open(io.BytesIO(drawn.png)) as picture:
        assert picture.mode == "P"
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[:40] == 255).all()
    assert not (pixels[80:120, 80:120] == 255).all()


@pytest.mark.slow
def test_maps_of_few_pictures_and_of_many_classes(network: tuple[Network, dict[str, Any]]) -> None:
    model, variables = network
    images = draw(20)
    one = Pictures(images[:1], np.array([-1], np.int32), (Path("a.png"),))
    figures = layer_figures.draw_layers(model, variables, one, ("a", "b", "c"))
    assert [figure.name for figure in figures] == ["filters"]  # a single picture tells nothing apart
    many = Pictures(images, np.arange(20, dtype=np.int32), tuple(Path(f"{n}.png") for n in range(20)))
    figures = layer_figures.draw_layers(model, variables, many, [f"class {n}" for n in range(20)], said="Of it.")
    assert [figure.name for figure in figures] == ["filters", "filter_maxima", "layers"]
    assert all(figure.caption.endswith("Of it.") for figure in figures)
    assert figures[2].caption.startswith("20 pictures")


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_figures_of_trained_runs(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_food: Path
) -> None:
    from jaxfood.train import train_and_evaluate

    monkeypatch.setattr(layer_figures, "MOST_PICTURES", 7)
    one = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=1))
    other = dataclasses.replace(one, model=dataclasses.replace(one.model, dtype="bfloat16"))
    for name, config in (("one", one), ("other", other)):
        train_and_evaluate(config, tmp_path / name)
    shutil.copytree(tiny_food / "valid", tmp_path / "valid")
    (tmp_path / "valid" / "0_9.jpg").write_bytes(b"no picture")
    index = index_pictures(tmp_path / "valid")
    figures = explain([tmp_path / "one", tmp_path / "other"], index, [5, 3, 0], progress=False)
    assert [figure.name for figure in figures] == ["explanations_1", "filters", "filter_maxima", "layers"]
    assert figures[0].alt.startswith(f"{index.paths[5].name}: answered")
    said = "The answer is that of 2 runs together, and each map the mean of theirs."
    assert figures[0].caption.endswith(f"{said} Left out, as they cannot be read: 0_9.jpg.")
    assert figures[3].caption.startswith("7 of 9 pictures")
    assert figures[1].caption.endswith(f"Of {tmp_path / 'one'}, the first of 2 runs.")
    assert all(len(figure.png) < 400_000 for figure in figures)
    again = explain([tmp_path / "one", tmp_path / "other"], index, [5, 3, 0], progress=False)
    assert [figure.png for figure in again] == [figure.png for figure in figures]


def test_the_mean_over_runs_is_in_the_size_of_the_first() -> None:
    maps = [
        Explanations(*[np.full((2, side, side), value)] * 6, gap=np.array([value, value]), lime_r2=np.zeros(2))
        for side, value in ((4, 1.0), (8, 3.0))
    ]
    mean = explaining._mean(maps)
    assert mean.lime.shape == (2, 4, 4)
    np.testing.assert_allclose(mean.lime, 2, rtol=1e-6)
    assert mean.gap.tolist() == [2, 2]
