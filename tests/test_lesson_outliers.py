"""The lesson outliers: its pictures, how it counts, the mean derivative, and a short run of the whole."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from lesson_pages import read_lesson

from jaxfood.errors import UserError
from jaxfood.lessons import few_classes, run_lesson
from jaxfood.lessons import outliers as lesson
from jaxfood.lessons.few_classes import AS_THEY_ARE, CENTRED, RANDOM, Pictures


@pytest.mark.parametrize(
    ("values", "gap", "ratio"),
    [
        ([90.0, 60.0, 3.0, 2.0], 2, 20.0),
        ([90.0, 9.0, 3.0, 2.0], 1, 10.0),
        ([90.0, 80.0, 70.0, 1e-9, -5.0], 3, 70 / 0.09),  # what is 0 or less counts as a thousandth of the largest
    ],
)
def test_outliers_end_at_the_widest_ratio(values: list[float], gap: int, ratio: float) -> None:
    found = lesson.widest_gap(np.array(values))
    assert found == (gap, pytest.approx(ratio))


def test_the_share_is_that_of_the_square() -> None:
    assert lesson.share_in_span(np.eye(3)[:2], np.array([1.0, 2.0, 2.0])) == pytest.approx(5 / 9)


@pytest.mark.slow
def test_where_all_pictures_are_one_the_mean_derivative_is_all_of_gauss_newton() -> None:
    inputs = np.tile(np.random.default_rng(0).uniform(size=(1, 4)), (5, 1)).astype(np.float32)
    params = few_classes.init_params(4, 3, seed=0)
    flat, tree = ravel_pytree(params)
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda flat: few_classes.outputs(tree(flat), inputs[:1])[0]))(flat))
    p = np.asarray(jax.nn.softmax(few_classes.outputs(params, inputs[:1])[0]))
    values, vectors = lesson.mean_derivative_eigenpairs(params, inputs)
    assert values[2] == pytest.approx(0, abs=1e-5 * values[0])
    gauss_newton = jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
    np.testing.assert_allclose((vectors.T * values) @ vectors, gauss_newton, atol=1e-5 * values[0])


def test_labels_and_inputs_are_changed_and_nothing_else() -> None:
    inputs = np.random.default_rng(0).uniform(size=(30, 4))
    pictures = Pictures(inputs, np.repeat(np.arange(3), 10), 3)
    assert pictures.changed(AS_THEY_ARE, 1) is pictures
    drawn, centred = pictures.changed(RANDOM, 1), pictures.changed(CENTRED, 1)
    assert np.bincount(drawn.labels).tolist() == [10, 10, 10]
    assert np.any(drawn.labels != pictures.labels)
    np.testing.assert_allclose(centred.inputs.mean(axis=0), 0, atol=1e-12)
    assert np.mean(centred.inputs**2) == pytest.approx(1)
    np.testing.assert_array_equal(centred.labels, pictures.labels)
    assert pictures.of_first(2).labels.tolist() == [0] * 10 + [1] * 10


def test_photographs_are_as_many_of_each_class_and_not_centred(
    tiny_food: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_classes, "PICTURES", 5)
    pictures = few_classes.load_pictures(tiny_food)
    assert (pictures.inputs.shape, pictures.classes) == ((15, 192), 3)
    assert np.bincount(pictures.labels).tolist() == [5, 5, 5]
    assert pictures.inputs.min() >= 0
    assert np.mean(pictures.inputs**2) == pytest.approx(1)
    brightest = pictures.inputs.reshape(15, 64, 3).mean(axis=1).argmax(axis=1)  # a class is a colour
    assert brightest.tolist() == pictures.labels.tolist()


def test_a_folder_with_too_little_is_refused(tiny_food: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^--images: .* has 7 training pictures of .*; the lesson takes 60 of each"):
        few_classes.load_pictures(tiny_food)
    monkeypatch.setattr(few_classes, "LEAST", 4)
    with pytest.raises(UserError, match=r"^--images: .* has 3 classes; the lesson takes 4 or more$"):
        few_classes.load_pictures(tiny_food)


@pytest.mark.slow
def test_one_outlier_less_than_classes_and_the_gradient_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "CLASSES", (3, 10))
    monkeypatch.setattr(lesson, "LOOKS", (0, 100))
    run_lesson("outliers", tmp_path)
    sizes = dict.fromkeys(("spectrum", "way", "controls"), (1200, 480))
    page, numbers = read_lesson(tmp_path, "outliers", sizes)
    assert all(claim["holds"] for claim in numbers["claims"])
    assert [run["looks"][-1]["gap"] for run in numbers["seeds"][0]["runs"][:3]] == [2, 9, 9]
    assert "| 10 classes: outlying eigenvalues | Sagun et al. 2017" in page
