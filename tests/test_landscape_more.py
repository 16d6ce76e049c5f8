"""`python -m jaxfood.landscape` with `--more` and `--to`, the largest eigenvalues, the critical rate while training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config import Config, load_config
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError
from jaxfood.landscape import Matrix, Point
from jaxfood.landscape.__main__ import main
from jaxfood.model.networks import init_variables, make_model
from jaxfood.optim.stability import stability
from jaxfood.run_landscape.connection import PathMeasured, check_comparable
from jaxfood.run_landscape.more import fisher_is_gauss_newton, load_stepping
from jaxfood.run_landscape.network_loss import make_network_loss
from jaxfood.run_landscape.objective import choose_positions, make_objective, make_point
from jaxfood.runs.directory import load_run
from jaxfood.train import train_and_evaluate
from jaxfood.training.logbook import read_metrics
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")

FAST = (
    *("--samples", "4", "--landscape.max_products", "4", "--landscape.trace_products", "4"),
    *("--landscape.probes", "2", "--landscape.steps", "2", "--landscape.memory_gib", "0"),
)


@pytest.fixture(scope="module")
def config(tiny_food: Path) -> Config:
    shape = ("data.image_size=32", "model.num_classes=3", "train.batch_size=8", "train.epochs=2", "device.count=1")
    more = ("logging.critical_learning_rate=2", "landscape.samples=4", "optimizer.learning_rate=0.003")
    return load_config(None, (f"data.root={tiny_food}", "logging.progress=false", *shape, *more))


@pytest.fixture(scope="module")
def runs(config: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A trained run, and one of other weights."""
    made = [tmp_path_factory.mktemp("more") / name for name in ("trained", "other")]
    train_and_evaluate(config, made[0])
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=2))
    begin_from(made[1], config, init_variables(other), classes=("0", "1", "2"))
    return made


@pytest.mark.slow
def test_training_tells_the_critical_learning_rate(runs: list[Path], config: Config) -> None:
    """That of the state that was saved then: a step of the rate below it lowers the loss, one of the rate above not."""
    first, second = read_metrics(runs[0] / "metrics.jsonl")
    assert second.keys() - first.keys() == {"critical_learning_rate", "critical_sharpness"}
    rate = second["critical_learning_rate"]
    assert second["critical_sharpness"] == pytest.approx(2 / rate)
    _, variables, _ = load_run(runs[0], "last")
    train = load_splits(config.data, 3, seed=0, progress=False).train
    point = make_point(config, variables, train.subset(choose_positions(len(train), 4, 0)))
    stepping = load_stepping(runs[0], config, "last")
    inverse = stability(config, stepping.opt_state, stepping.params).inverse
    direction = point.gradient * point.flat(inverse)
    assert point.loss_at(-0.9 * rate * direction) < point.loss
    assert point.loss_at(-1.1 * rate * direction) > point.loss


@pytest.mark.slow
def test_more_of_a_checkpoint(runs: list[Path], tiny_food: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(runs[0]), "--images", str(tiny_food / "train"), "--which", "last", "--more", *FAST])
    out = capsys.readouterr().out
    report = json.loads((runs[0] / "landscape" / "landscape.json").read_text())
    page = (runs[0] / "landscape" / "landscape.md").read_text()
    top = report["top_eigenvalues"]
    assert len(top) == 3  # as many as classes
    assert top[0]["value"] == pytest.approx(report["largest_eigenvalue"], rel=1e-3)
    shares = [each["gradient_share"] for each in top]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    assert "of the squared gradient lies along the 3 largest eigenvalues' vectors" in out
    sharp = report["preconditioned"]
    assert sharp["optimizer"] == "adam"
    assert sharp["learning_rate"] == pytest.approx(0.003)
    assert sharp["limit"] == pytest.approx(38 / 0.003)
    assert sharp["sharpness"] > report["largest_eigenvalue"]  # mean squares of gradients are below 1
    assert "sharpness as adam sees it" in out
    assert set(report["layers"]) == {*(f"block{i}" for i in range(1, 6)), "dense1", "dense2", "head"}
    assert all(each["largest_eigenvalue"] <= report["largest_eigenvalue"] * 1.1 for each in report["layers"].values())
    assert set(report["matrices"]) == set(Matrix)
    assert report["matrices"]["fisher"] == report["matrices"]["gauss_newton"]
    assert "| gauss newton |" in page
    assert "| dense1 |" in page


@pytest.mark.slow
def test_more_that_is_stopped_keeps_what_it_has(
    runs: list[Path], tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxfood.run_landscape.more.trace_by_layer", stop)
    images = ("--images", str(tiny_food / "train"), "--out", str(tmp_path))
    with pytest.raises(KeyboardInterrupt, match="has what was measured"):
        main([str(runs[0]), *images, "--which", "last", "--more", *FAST])
    report = json.loads((tmp_path / "landscape.json").read_text())
    assert report["missing"] == ["the rest of --more"]
    assert report["preconditioned"]["optimizer"] == "adam"
    assert set(report["matrices"]) == set(Matrix)
    assert report["layers"] == {}


@pytest.mark.slow
def test_the_way_to_another_run(
    runs: list[Path], tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ("--images", str(tiny_food / "train"), "--samples", "9", "--landscape.curve_updates", "60")
    images += ("--landscape.curve_rate", "0.05")
    main([str(runs[0]), "--to", str(runs[1]), "--which", "last", "--out", str(tmp_path), *images])
    found = json.loads((tmp_path / "connection.json").read_text())
    assert (found["samples"], found["fitted_by"]) == (9, 12)
    line, curve = found["line"], found["curve"]
    for name in ("losses", "accuracies"):
        assert line[name][0] == pytest.approx(curve[name][0], rel=1e-5)
        assert line[name][-1] == pytest.approx(curve[name][-1], rel=1e-5)
    assert curve["losses"][5] < line["losses"][5]
    for path in (line, curve):
        losses = np.array(path["losses"])
        level = np.interp(np.linspace(0, 1, len(losses)), [0, 1], losses[[0, -1]])
        assert path["barrier"] == pytest.approx(max(0, np.max(losses - level)), abs=1e-6)
    out = capsys.readouterr().out
    assert "60 updates of the curve by 12 pictures, then the loss of 9 at 11 places" in out
    assert "line: loss" in out
    assert (tmp_path / "connection-paths.png").is_file()
    assert "12 others" in (tmp_path / "connection.md").read_text()


@pytest.mark.slow
def test_from_a_run_to_itself_there_is_no_wall(runs: list[Path], tiny_food: Path, tmp_path: Path) -> None:
    images = ("--images", str(tiny_food / "valid"), "--samples", "99", "--landscape.curve_updates", "1")
    main([str(runs[0]), "--to", str(runs[0]), "--out", str(tmp_path), *images])
    found = json.loads((tmp_path / "connection.json").read_text())
    np.testing.assert_allclose(found["line"]["losses"], found["line"]["losses"][0], rtol=1e-4)
    assert found["line"]["barrier"] == pytest.approx(0, abs=1e-4)
    assert "the same ones, as there are no others" in (tmp_path / "connection.md").read_text()


def test_what_has_no_way_in_between_is_refused(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {"a": ("x", "y"), "b": ("x", "y"), "c": ("x", "z")}
    monkeypatch.setattr("jaxfood.run_landscape.connection.read_classes", lambda run: classes[run.name])
    a, b, c = (tmp_path / name for name in "abc")
    check_comparable(a, b, config, dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.1)))
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, width=32))
    with pytest.raises(UserError, match="have different networks: take two runs of one model"):
        check_comparable(a, b, config, other)
    with pytest.raises(UserError, match="have different classes"):
        check_comparable(a, c, config, config)
    larger = dataclasses.replace(config, data=dataclasses.replace(config.data, image_size=64))
    with pytest.raises(UserError, match=r"has data\.image_size = 32 and .*b 64"):
        check_comparable(a, b, config, larger)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "other", "--more"], "leave out --more, or --to"),
        (["--to", "other", "--path"], "leave out --path, or --to"),
        (["--to", "other", "--escape", "new"], "leave out --escape, or --to"),
        (["--path", "--more"], "--more is measured of one checkpoint"),
    ],
)
def test_flags_that_do_not_go_together(flags: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        main([str(tmp_path), "--images", str(tmp_path), *flags])


def test_a_wall_of_a_path() -> None:
    losses = np.linspace(1, 2, 11)
    losses[4] += 0.5
    assert PathMeasured(losses, losses).barrier == pytest.approx(0.5)


@pytest.mark.parametrize("of", ["loss.class_weights=1,2,1", "loss.name=focal", "loss.name=mse"])
def test_of_other_losses_fisher_is_another_matrix(of: str) -> None:
    assert not fisher_is_gauss_newton(load_config(None, (of, "model.num_classes=3")).loss)


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_the_loss_in_two_parts_is_the_loss(config: Config, statistics: str) -> None:
    """Through the fused layers too: values, and Gauss-Newton plus remainder by the Jacobian of the plain ones."""
    config = dataclasses.replace(config, landscape=dataclasses.replace(config.landscape, statistics=statistics))
    pictures = load_splits(config.data, 3, seed=0, progress=False).train.subset(np.arange(5))
    variables = init_variables(config)
    network = make_network_loss(config, variables["batch_stats"], pictures)
    whole = make_objective(config, variables["batch_stats"], pictures)
    assert network.objective.value(variables["params"]) == pytest.approx(whole.value(variables["params"]), rel=1e-5)
    point = Point(whole, variables["params"])
    along = np.random.default_rng(0).standard_normal(point.size).astype(np.float32)
    found = network.at(point, Matrix.GAUSS_NEWTON).product(along)
    plain = make_model(config.model).clone(fused=False)
    images = jnp.asarray(pictures.images, jnp.float32) / 255

    def logits(params: Any) -> jax.Array:
        whole = {"params": params, "batch_stats": variables["batch_stats"]}
        if statistics == "running":
            return plain.apply(whole, images, train=False)  # type: ignore[return-value]
        return plain.apply(whole, images, train=True, mutable=["batch_stats"])[0]

    z, moved = jax.jvp(logits, (variables["params"],), (point.tree(along),))
    p = jax.nn.softmax(z)
    back = jax.vjp(logits, variables["params"])[1](p * (moved - jnp.sum(p * moved, -1, keepdims=True)) / 5)[0]
    expected = point.flat(back)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert fisher_is_gauss_newton(config.loss)
    fisher = network.at(point, Matrix.FISHER).product(along)
    np.testing.assert_allclose(found, fisher, atol=1e-4 * np.abs(expected).max())
    remainder = network.at(point, Matrix.REMAINDER).product(along)
    np.testing.assert_allclose(found + remainder, point.product(along), atol=1e-4 * np.abs(expected).max())
