"""report.html: what stands in it, that names are text everywhere, and that nothing is loaded from elsewhere."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from report_runs import (
    HOSTILE,
    SIDE,
    add_landscape,
    evaluation,
    figures,
    make_run,
    record,
    saddle,
    small_config,
    with_epochs,
)

from jaxfood.errors import UserError, printable
from jaxfood.report.html import write_report, write_training_report
from jaxfood.report.html.settings import changed_settings
from jaxfood.report.html.words import WORDS

VOID = {"img", "meta", "link", "br", "input", "wbr"}


class Page(HTMLParser):
    """A page's elements and texts; every element must be closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # the element that a text stands in, and the text
        self._open: list[str] = []
        self.feed(self.source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def text(self) -> str:
        """What is to be read."""
        return "\n".join(text for tag, text in self.texts if tag not in ("script", "style"))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self, identifier: str) -> Any:
        """What one of the JSON blocks holds."""
        found = re.search(rf'<script type="application/json" id="{identifier}">(.*?)</script>', self.source, re.S)
        assert found
        return json.loads(found[1])

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for attributes in self.all("section")]

    @property
    def charts(self) -> list[str]:
        return [chart["id"] for chart in self.data("report-data")["charts"]]


def report(folder: Path, *runs: Path, **more: Any) -> Page:
    write_report(folder / "report.html", runs, **more)
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Everything that a report can have, with names that try to be markup."""
    folder = tmp_path_factory.mktemp("full")
    run = make_run(folder / "run <b>&\u202e")
    add_landscape(run)
    return report(folder, run, evaluation=evaluation(), figures=figures())


@pytest.mark.smoke
def test_its_parts_and_their_order(full: Page) -> None:
    parts = ["summary", "evaluation", "figures", "training", "time", "landscape", "settings", "system"]
    assert full.sections == parts
    assert [link["href"] for link in full.all("a")] == ["#content", *(f"#{part}" for part in parts)]
    assert len(full.all("h1")) == 1
    identifiers = [attributes["id"] for _, attributes in full.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    charts = [attributes["data-chart"] for attributes in full.all("div") if "data-chart" in attributes]
    assert sorted(charts) == sorted(full.charts)


def test_the_curves_are_metrics_jsonl(full: Page) -> None:
    (run,) = full.data("report-data")["runs"]
    records = [record(epoch) for epoch in (1, 2, 3, 4)]
    for key in records[0]:
        assert run["columns"][key] == pytest.approx([each[key] for each in records], rel=1e-5)
    assert run["best"] == 3
    expected = ["reliability", "loss", "accuracy_curve", "learning_rate", "grad_norm", "seconds", "images_per_second"]
    assert full.charts == expected


def test_the_figures_of_an_evaluation(full: Page) -> None:
    for shown in ("68.8 %", "61.3 % to 75.2 %", "91.2 %", "0.9876", "4.2 %", "81.2 %", "62.5 %", "12,345"):
        assert shown in full.text, shown
    for text in ("a_later_key.inside", "balanced_accuracy", "99.8 %", "a remark on"):
        assert text in full.source.replace("<wbr>", ""), text
    cells = [attributes for attributes in full.all("td") if "data-share" in attributes]
    assert len(cells) == len(HOSTILE) ** 2
    confusion = evaluation()["confusion"]
    shares = [float(cell["data-share"] or "") for cell in cells]
    assert shares[:5] == pytest.approx([count / sum(confusion[0]) for count in confusion[0]], abs=1e-4)
    assert shares[-5:] == [0, 0, 0, 0, 0]  # no picture of that class
    numbers = re.findall(r'<td class="shade\d+(?: right)?" data-share="[\d.]+">(\d+)</td>', full.source)
    assert [int(number) for number in numbers] == [count for row in confusion for count in row]


def test_the_landscape_and_the_pictures(full: Page) -> None:
    for text in ("A saddle", "94.25", "-14.14", "± 0.11", "valid/<b>x</b>"):
        assert text in full.text, text
    pictures = full.all("img")
    assert len(pictures) == 5
    assert all(picture["alt"] for picture in pictures)
    for picture in pictures:
        kind, content = (picture["src"] or "").split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content, validate=True).startswith(b"\x89PNG")


def test_the_plane_as_a_surface(full: Page) -> None:
    (surface,) = full.data("report-data")["surfaces"]
    assert surface["steps"] == surface["other_steps"] == SIDE
    assert surface["losses"] == [[saddle(x, y) for y in SIDE] for x in SIDE]
    (place,) = [each for each in full.all("div") if "data-surface" in each]
    assert place["data-surface"] == surface["id"]
    assert len([each for each in full.all("td") if "data-share" not in each]) >= len(SIDE) ** 2  # every loss


@pytest.mark.parametrize(
    ("plane", "reason"),
    [
        (5, "the plane is no table"),
        ({"steps": [0, 1], "other_steps": [0, None], "losses": []}, "its steps are no numbers"),
        ({"steps": [0, 1], "other_steps": [0, 1], "losses": [[1, 2], [3]]}, "its losses are not as many as its steps"),
    ],
)
def test_a_damaged_plane_is_left_out_and_said(tmp_path: Path, plane: Any, reason: str) -> None:
    run = make_run(tmp_path / "run")
    add_landscape(run, plane=plane, missing=["trace"], why_missing="interrupted")
    page = report(tmp_path, run)
    assert f"The surface of the loss is left out ({reason})." in page.text
    assert "Not measured (interrupted): trace" in page.text
    assert page.data("report-data")["surfaces"] == []
    assert "94.25" in page.text


def test_time_settings_and_versions(full: Page) -> None:
    for text in (
        "7.0 s",
        "70.0 %",
        "optimizer.",
        "adamw",
        "1 cpu device",
        "jaxfood 0.1.0, jax 0.10.2",
        "orbax-checkpoint",
    ):
        assert text in full.text, text
    assert "augment.flip" not in full.source  # as the default has it


def test_names_are_text_everywhere(full: Page) -> None:
    for name in HOSTILE:
        assert printable(name) in full.text, name
    assert "</pre><script>alert(3)</script>" in full.text  # the log
    assert len(full.all("script")) == 4
    assert {attributes.get("type") for attributes in full.all("script")} == {None, "application/json"}
    assert not {"b", "i"} & {tag for tag, _ in full.elements}
    handlers = [name for _, attributes in full.elements for name in attributes if name.startswith("on")]
    assert handlers == []
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", full.source)
    for tag in ("td", "th"):  # with a direction of writing of its own
        assert not any(name in text for element, text in full.texts if element == tag for name in HOSTILE)


def test_nothing_is_loaded(full: Page) -> None:
    assert "http:" not in full.source
    assert "https:" not in full.source
    for _, attributes in full.elements:
        for key in ("src", "href", "data", "action", "srcset", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), attributes
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|WebSocket|EventSource", full.source)


def test_no_script_runs_but_its_own(full: Page) -> None:
    (policy,) = (each["content"] for each in full.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    scripts = re.findall(r"<script>(.*?)</script>", full.source, re.S)
    hashes = {"'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" for text in scripts}
    assert len(scripts) == 2
    assert policy is not None
    assert "default-src 'none'" in policy
    assert set(re.findall(r"'sha256-[^']+'", policy)) == hashes
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def test_the_size_that_is_told(full: Page) -> None:
    told = re.search(r"This file has (\d+) kB", full.text)
    assert told
    assert int(told[1]) == round(len(full.source.encode()) / 1000)


def test_every_word_in_both_languages(full: Page) -> None:
    for key, (english, chinese) in WORDS.items():
        assert english, key
        assert set(re.findall(r"\{\d\}", english)) == set(re.findall(r"\{\d\}", chinese)), key
        assert re.search("[\u4e00-\u9fff]", chinese) or key == "f1", key
        assert not re.search("[\u4e00-\u9fff][,:;]|[,:;][\u4e00-\u9fff]", chinese), key
    assert full.data("report-words") == {key: list(pair) for key, pair in WORDS.items()}
    for _, attributes in full.elements:
        for name in ("data-word", "data-word-label"):
            assert attributes.get(name, "summary") in WORDS
    script = (resources.files("jaxfood.report.html") / "assets" / "report.js").read_text(encoding="utf-8")
    used = set(re.findall(r'(?:say|button)\("(\w+)"', script))
    assert len(used) > 5
    assert used <= WORDS.keys()


def test_every_word_is_used() -> None:
    package = Path(str(resources.files("jaxfood.report.html")))
    files = [*package.glob("*.py"), *package.glob("assets/*")]
    source = "".join(path.read_text(encoding="utf-8") for path in files if path.name != "words.py")
    looked_up = ("work_", "verdict_", "figure_")
    keys = list(WORDS)
    of_evaluation = keys[keys.index("runs") : keys.index("figures")]  # by the keys that evaluation.json has
    unused = [key for key in keys if f'"{key}"' not in source and not key.startswith(looked_up)]
    assert set(unused) <= set(of_evaluation)


# What is missing or unusual.


def test_a_run_that_has_not_done_an_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", records=[])
    (run / "metrics.jsonl").unlink()
    (run / "log.txt").unlink()
    page = report(tmp_path, run)
    assert page.sections == ["summary", "training", "time", "settings", "system"]
    assert "No epoch is recorded yet." in page.text
    assert "not finished: 0 of 4 epochs" in page.text
    assert page.charts == []


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    records = [record(1, train_loss=None), record(2, valid_loss=float("nan"), grad_norm=float("inf")), record(3)]
    page = report(tmp_path, make_run(tmp_path / "run", records=records))
    (run,) = page.data("report-data")["runs"]
    assert run["columns"]["train_loss"][0] is None
    assert run["columns"]["valid_loss"][1] is run["columns"]["grad_norm"][1] is None
    assert run["best"] == 3


def test_one_epoch_and_a_column_of_its_own(tmp_path: Path) -> None:
    page = report(tmp_path, make_run(tmp_path / "run", records=[record(1, **{"<b>new": 3.25})]))
    assert page.charts[-3] == "<b>new"
    assert page.data("report-data")["runs"][0]["columns"]["<b>new"] == [3.25]
    assert "<b>new" in page.text


def test_a_thousand_epochs(tmp_path: Path) -> None:
    config = with_epochs(small_config(), 1000)
    records = [record(epoch, train_loss=1 / (epoch + 0.123456789)) for epoch in range(1, 1001)]
    page = report(tmp_path, make_run(tmp_path / "run", config, records))
    assert len(page.data("report-data")["runs"][0]["columns"]["train_loss"]) == 1000
    assert len(page.source) < 200_000


def test_early_stopping_is_said(tmp_path: Path) -> None:
    """Patience 1: epochs 4 and 5 brought no new best."""
    config = with_epochs(small_config("train.patience=1"), 8)
    page = report(tmp_path, make_run(tmp_path / "run", config, [record(epoch) for epoch in range(1, 6)]))
    assert "stopped early after 5 of 8 epochs" in page.text
    page = report(tmp_path, make_run(tmp_path / "on", config, [record(epoch) for epoch in range(1, 5)]))
    assert "not finished: 4 of 8 epochs" in page.text


def test_several_runs_are_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a" / "run")
    second = make_run(tmp_path / "b" / "run", small_config("optimizer.name=sgd", "train.batch_size=16"))
    page = report(tmp_path, first, second)
    names = [run["name"] for run in page.data("report-data")["runs"]]
    assert names == ["a/run", "b/run"]
    assert "2 runs compared" in page.text
    series = page.data("report-data")["charts"][0]["series"]
    assert {each["run"] for each in series} == {0, 1}
    rows = re.findall(r"<tr><th scope=\"row\"><code>(.*?)</code>(.*?)</tr>", page.source)
    cells = {key.replace("<wbr>", ""): re.findall(r"<bdi>(.*?)</bdi>", row) for key, row in rows}
    assert cells["train.batch_size"] == ["64", "16", "64"]  # both, and the default
    assert cells["optimizer.name"] == ["adamw", "sgd", "adam"]
    marked = {key.replace("<wbr>", "") for key, row in rows if 'class="differs"' in row}
    assert marked == {"train.batch_size", "optimizer.name"}


def test_defaults_are_those_of_the_chosen_optimizer() -> None:
    changed = changed_settings(small_config("optimizer.weight_decay=0.5"))
    assert changed["optimizer.name"] == "adamw"
    assert changed["optimizer.weight_decay"] == 0.5
    assert "optimizer.learning_rate" not in changed


def test_folds(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for fold in (1, 2):
        make_run(whole / f"fold{fold}", small_config("train.folds=3", f"train.fold={fold}"))
    (whole / "config.toml").write_text((whole / "fold1" / "config.toml").read_text())
    known = {"folds": 3, "accuracies": [0.5, 0.75], "mean": 0.625, "standard_deviation": 0.1768}
    known["ensemble"] = {"folds": 2, "pictures": 9, "accuracy": 0.8889}
    (whole / "folds.json").write_text(json.dumps({"format": 1, **known}))
    page = report(tmp_path, whole)
    assert [run["name"] for run in page.data("report-data")["runs"]] == ["whole/fold1", "whole/fold2"]
    assert "Cross-validation, 2 of 3 folds: mean accuracy 0.6250, standard deviation 0.1768." in page.text
    assert "0.8889 of the 9 validation pictures" in page.text


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "landscape").mkdir()
    (run / "landscape" / "landscape.json").write_text("[1")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("torn\n")
    page = report(tmp_path, run)
    assert "run: metrics.jsonl has 1 lines that are no records; they are left out" in page.text
    assert "run: landscape.json cannot be read and is left out" in page.text
    assert "landscape" not in page.sections


def test_an_evaluation_of_the_least_that_it_can_hold(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "0.0 %" in report(tmp_path, run, evaluation={"accuracy": 0.0}).text
    page = report(tmp_path, run, evaluation={"accuracy": 1.0, "confusion": [[1]], "reliability": []})
    assert "No picture was answered wrongly." in page.text
    assert len([each for each in page.all("td") if "data-share" in each]) == 1


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        write_report(tmp_path / "report.html", [tmp_path])
    assert not (tmp_path / "report.html").exists()


# While a run is trained.


def test_a_training_refreshes_its_page_until_it_has_ended(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", with_epochs(small_config(), 9))
    write_training_report(run, {"train": 30.0, "validate": 10.0})
    page = Page(run / "report.html")
    assert page.data("report-data")["refresh"] == 2
    assert [each["content"] for each in page.all("meta") if each.get("http-equiv") == "refresh"] == ["2"]
    assert "training: epoch 4 of 9" in page.text
    assert "75.0 %" in page.text  # of the time so far, and not of the log's
    write_training_report(run, None)
    page = Page(run / "report.html")
    assert page.data("report-data")["refresh"] == 0
    assert not [each for each in page.all("meta") if each.get("http-equiv") == "refresh"]
    assert "not finished: 4 of 9 epochs" in page.text


# Colours.


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_and_curves_stand_out(theme: int) -> None:
    """WCAG 2 AA: 4.5 to 1 for texts, 3 to 1 for what else is to be told apart."""
    css = (resources.files("jaxfood.report.html") / "assets" / "report.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)
    colours = {name: pair[theme] for name, *pair in pairs}
    for text, behind in (
        ("text", "page"),
        ("quiet", "page"),
        ("text", "mark"),
        ("quiet", "panel"),
        ("accent", "panel"),
    ):
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for name in ("control", *(f"run{number}" for number in range(7))):
        assert contrast(colours[name], colours["panel"]) >= 3, name
    shades = re.findall(r"\.shade(\d+) \{ background: light-dark\((#\w+), (#\w+)\);(?: color: (.*?);)? \}", css)
    assert [int(level) for level, *_ in shades] == list(range(11))
    for level, *behind, text in shades:
        own = re.findall(r"#\w{6}", text)
        colour = own[theme] if own else colours["quiet" if "quiet" in text else "text"]
        assert contrast(colour, behind[theme]) >= 4.5, level
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
