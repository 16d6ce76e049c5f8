"""`scripts/benchmarks/ingredients.py`: what it counts, and a training that it does not repeat."""

from pathlib import Path

import ingredients
import pytest
from ingredients import Result

from jaxfood.config import Config, loading


def result(*right: int, accuracy: float = 0.5) -> Result:
    return Result(accuracy, accuracy - 0.1, 10.0, [bool(each) for each in right])


def test_every_ingredient_is_a_configuration() -> None:
    plain = loading.merge(ingredients.as_source(ingredients.RECIPE))
    for name, settings in ingredients.INGREDIENTS.items():
        config = loading.merge(ingredients.as_source({**ingredients.RECIPE, **settings}))
        assert (config == plain) == (name == "the recipe")


def test_mcnemars_test() -> None:
    """Of ten discordant pictures nine are gained: 2 (1 + 10) / 2^10."""
    recipe, found = result(*[0] * 9, 1, 1, 0), result(*[1] * 9, 0, 1, 0)
    assert ingredients.chance([found], [recipe]) == pytest.approx(22 / 1024)
    assert ingredients.chance([recipe], [recipe]) == 1


def test_rows() -> None:
    results = {"the recipe": [result(0, 1), result(1, 1)], "x": [result(1, 1, accuracy=0.6), result(1, 1)]}
    first, second = ingredients.rows(results)
    assert first == ("the recipe", "0.500", "0.500, 0.500", "0.400", "+0.0", "", "10")
    assert second == ("x", "0.550", "0.600, 0.500", "0.450", "+5.0", "1.00", "10")


def test_a_training_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[str, Config]] = []

    def train(run: Path, config: Config) -> Result:
        trained.append((run.name, config))
        return result(1, 0, accuracy=0.1 * len(trained))

    monkeypatch.setattr(ingredients, "alone", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(ingredients, "train", train)
    words = ["--images", "food", "--out", str(tmp_path / "runs"), "--only", "without flip", "--train.epochs", "3"]
    ingredients.main([*words, "--seeds", "2"])
    first = capsys.readouterr().out
    assert [name for name, _ in trained] == ["the_recipe-1", "without_flip-1", "the_recipe-2", "without_flip-2"]
    assert [config.augment.flip for _, config in trained] == [True, False, True, False]
    assert [config.train.seed for _, config in trained] == [1, 1, 2, 2]
    assert {(config.train.epochs, Path(config.data.root).name) for _, config in trained} == {(3, "food")}
    assert "without flip, seed 2: 0.4000, 10 s" in first
    ingredients.main([*words, "--seeds", "2"])
    assert len(trained) == 4
    assert capsys.readouterr().out.splitlines()[-4:] == first.splitlines()[-4:]
