"""The page to try runs on: its endpoint, what it refuses, who may reach it, and the page itself in a browser."""

import base64
import io
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import axe_violations
from PIL import Image

from jaxfood import serve
from jaxfood.config import load_config
from jaxfood.data.decode import decode_picture
from jaxfood.errors import UserError
from jaxfood.inference.probabilities import predict_probabilities
from jaxfood.model.networks import init_variables, predict_logits
from jaxfood.runs.directory import load_run
from jaxfood.serving.answerer import Answerer, _smoothed
from jaxfood.training.saved import begin_from

for _package in ("starlette", "uvicorn", "python_multipart", "httpx2"):
    pytest.importorskip(_package, reason="of the optional extra serve, and its tests")

CLASSES = ("Bread", "<b>麵條</b>", "Egg")

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(seed: int = 0, *settings: str) -> Path:
        common = ("data.image_size=32", "model.num_classes=3", f"train.seed={seed}")
        config = load_config(None, (*common, *settings))
        variables = init_variables(config)
        params = jax.tree.map(lambda leaf: 1.7 * leaf, variables["params"])  # fresh ones answer all pictures alike
        workdir = tmp_path_factory.mktemp("runs") / f"run{seed}"
        begin_from(workdir, config, variables | {"params": params}, classes=CLASSES)
        return workdir

    return make


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run()


@pytest.fixture(scope="module")
def answerer(run: Path) -> Answerer:
    return Answerer([run])


def client_of(answerer: Answerer, *names: str, **options: str) -> Any:
    from starlette.testclient import TestClient

    from jaxfood.serving.app import make_app

    return TestClient(make_app(answerer, "a <run>", names or ("*",)), **options)


@pytest.fixture(scope="module")
def client(answerer: Answerer) -> Iterator[Any]:
    with client_of(answerer) as client:
        yield client


@pytest.fixture(scope="module")
def picture(tiny_food: Path) -> Path:
    return tiny_food / "test" / "0001.jpg"


def answered(response: Any) -> dict[str, float]:
    assert response.status_code == 200, response.text
    return {each["name"]: each["probability"] for each in response.json()["classes"]}


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))


# Answers.


def test_it_answers_as_predict_does(client: Any, run: Path, picture: Path) -> None:
    response = client.post("/predict", content=picture.read_bytes())
    expected = predict_probabilities([run], picture, progress=False)[0]
    classes = response.json()["classes"]
    assert answered(response) == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-5)
    assert [each["probability"] for each in classes] == sorted(expected.tolist(), reverse=True)
    assert [CLASSES[each["label"]] for each in classes] == [each["name"] for each in classes]
    np.testing.assert_array_equal(pixels(response.json()["seen"]), decode_picture(picture, 32))
    assert pixels(response.json()["saliency"]).shape == (32, 32)


def test_a_form_and_no_saliency(client: Any, picture: Path) -> None:
    files = {"whatever": ("0001.jpg", picture.read_bytes(), "image/jpeg")}
    response = client.post("/predict?saliency=false", files=files, data={"note": "x"})
    assert response.json() == {"classes": client.post("/predict", content=picture.read_bytes()).json()["classes"]}


@pytest.mark.slow
def test_several_runs_of_several_sizes_answer_by_the_mean(
    make_run: Callable[..., Path], run: Path, picture: Path
) -> None:
    other = make_run(1, "data.image_size=64", "data.resize=pad")
    together = Answerer([run, other]).answer(picture.read_bytes())
    expected = predict_probabilities([run, other], picture, progress=False)[0]
    np.testing.assert_allclose(together.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(together.seen, decode_picture(picture, 64, resize="pad"))
    assert together.saliency.shape == (64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_the_orientation_is_the_runs_setting(make_run: Callable[..., Path], turned: bool) -> None:
    file = io.BytesIO()
    image = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, "PNG", exif=exif)
    answerer = Answerer([make_run(0, f"data.exif_orientation={str(turned).lower()}")])
    upright = np.rot90(np.asarray(image), -1) if turned else np.asarray(image)
    np.testing.assert_array_equal(answerer.answer(file.getvalue()).seen, upright)


def test_many_at_once_get_each_their_own(client: Any, tiny_food: Path) -> None:
    files = sorted((tiny_food / "test").iterdir()) * 3
    alone = [answered(client.post("/predict", content=file.read_bytes())) for file in files[:5]] * 3
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda file: client.post("/predict", content=file.read_bytes()), files))
    assert [answered(response) for response in together] == alone
    assert len({tuple(answer.values()) for answer in alone}) == 5


# Where it looked.


@pytest.mark.slow
def test_the_map_is_of_the_gradient_of_the_answer(answerer: Answerer, run: Path, picture: Path) -> None:
    """By finite differences over squares of 8 x 8 pixels, along the gradient's own signs."""
    model, variables, _ = load_run(run)
    encoded = picture.read_bytes()
    label = answerer.answer(encoded).label
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        image = decode_picture(picture, 32) / 255
        logit = jax.jit(lambda image: predict_logits(model, wide, image[None])[0, label])
        gradient = np.asarray(jax.grad(logit)(image))
        for row, column in ((0, 0), (8, 16), (24, 8)):
            square = np.zeros_like(image)
            square[row : row + 8, column : column + 8] = 1e-7 * np.sign(gradient[row : row + 8, column : column + 8])
            rise = float(logit(image + square) - logit(image - square)) / 2e-7
            assert rise == pytest.approx(np.abs(gradient[row : row + 8, column : column + 8]).sum(), rel=1e-3)
    np.testing.assert_allclose(
        answerer.answer(encoded).saliency, _smoothed(np.abs(gradient).max(axis=-1), 32), atol=0.02
    )


def test_the_map_is_bright_where_the_gradient_is_large() -> None:
    strength = np.zeros((32, 32))
    strength[20, 5] = 7
    shown = _smoothed(strength, 64)
    np.testing.assert_allclose(np.argwhere(shown == 1).mean(axis=0), (40.5, 10.5))
    assert shown.max() == 1
    assert shown[:20].max() == 0
    assert not _smoothed(np.zeros((32, 32)), 32).any()  # of a network that answers all pictures alike


# What is refused.


def bomb() -> bytes:
    """A PNG of a few bytes that says to be a million pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refused(response: Any, status: int) -> dict[str, str]:
    assert response.status_code == status
    return response.json()["error"]


def test_what_is_no_picture_gets_a_sentence(client: Any, picture: Path) -> None:
    for content, what in {
        b"hello": "it is a text, no picture",
        b"%PDF-1.4": "it is a PDF document",
        picture.read_bytes()[:600]: "it is a damaged or truncated JPEG",
        bomb(): "it is too large: 1000000 x 1000000 pixels",
    }.items():
        error = refused(client.post("/predict", content=content), 400)
        assert error["code"] == "not_a_picture"
        assert error["message"].startswith(f"this cannot be read as a picture: {what}")
    assert refused(client.post("/predict", content=b""), 400)["code"] == "empty"
    assert refused(client.post("/predict", files={"note": (None, "x")}), 400)["code"] == "empty"
    assert refused(client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"}), 400)[
        "message"
    ].startswith("the form cannot be read")
    assert refused(client.get("/predict"), 405)["code"] == "http"


def test_what_is_too_large_gets_a_sentence_and_is_not_kept(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxfood.serving import app as serving

    monkeypatch.setattr(serving, "MAX_UPLOAD", 3_000_000)
    kept = []
    uploaded = serving._limited

    async def watched(request: Any, limit: int) -> Any:
        async for chunk in uploaded(request, limit):
            kept.append(len(chunk))
            yield chunk

    monkeypatch.setattr(serving, "_limited", watched)
    error = refused(client.post("/predict", content=b"x" * 5_000_000), 413)  # its length is told
    assert error == {
        "code": "too_large",
        "message": "too large: 5 MB, where 3 MB are the most",
        "what": "5 MB",
    }
    assert not kept
    error = refused(client.post("/predict", content=(b"x" * 10**6 for _ in range(5))), 413)  # it is not
    assert error["what"] == "5 MB"
    assert sum(kept) <= 3_000_000
    error = refused(client.post("/predict", files={"picture": b"x" * 5_000_000}), 413)
    assert error["code"] == "too_large"


def test_only_its_own_page_and_its_own_name_reach_it(answerer: Answerer, picture: Path) -> None:
    client = client_of(answerer, "127.0.0.1", "localhost", base_url="http://127.0.0.1:8000")
    content = picture.read_bytes()
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "rebound.example:8000"}).status_code == 400
    assert client.post("/predict", content=content, headers={"host": "rebound.example"}).status_code == 400
    assert answered(client.post("/predict", content=content, headers={"origin": "http://127.0.0.1:8000"}))
    assert refused(client.post("/predict", content=content, headers={"origin": "http://a.example"}), 403)


# The page and the command.


def test_the_page_runs_its_own_script_and_asks_nobody_else(client: Any) -> None:
    response = client.get("/")
    assert "a &lt;run&gt;" in response.text
    assert not re.search(r"(src|href|url\()=?[\"']?\s*(https?:)?//", response.text)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    english, chinese = re.findall(r"^  (?:en|zh): \{(.*?)^  \},", response.text, re.DOTALL | re.MULTILINE)
    keys = [re.findall(r"(\w+): (?:[\"`(]|\w+ =>)", words) for words in (english, chinese)]
    assert sorted(keys[0]) == sorted(keys[1])
    assert set(re.findall(r'data-say="(\w+)"', response.text)) <= set(keys[0])


def test_a_port_in_use_and_a_host_that_is_none(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = rf"^cannot listen at 127\.0\.0\.1 port {port} \(Address already in use\): choose another --port or"
        with pytest.raises(UserError, match=message):
            serve.main([str(run), "--port", port])
    with pytest.raises(UserError, match="no such name or address"):
        serve.main([str(run), "--host", "no.such.name.invalid"])
    with pytest.raises(UserError, match="it takes a number, 0 to 65535, not 70000"):
        serve.main([str(run), "--port", "70000"])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_other_machines_only_if_asked_for_and_said(
    host: str, answerer: Answerer, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from starlette.testclient import TestClient

    served = []
    monkeypatch.setattr("jaxfood.serving.answerer.Answerer", lambda runs, which: answerer)
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: served.append(server.config.app))
    serve.main([str(run), "--host", host, "--port", "0"])
    said = capsys.readouterr().out
    answer = TestClient(served[0], base_url="http://kitchen.example").get("/")
    if host == "127.0.0.1":
        assert re.search(r"^open http://127\.0\.0\.1:\d+ in a browser; Ctrl-C ends it$", said, re.MULTILINE)
        assert "warning" not in said
        assert answer.status_code == 400
    else:
        assert re.search(r"^warning: whoever reaches this machine at port \d+ can use the page", said, re.MULTILINE)
        assert "open http://localhost:" in said
        assert answer.status_code == 200


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(run: Path, picture: Path) -> None:
    script = """if True:  # `narrow` holds in the tests' process alone
        import sys
        from jaxfood import cli, serve, terminal
        from jaxfood.model import classifier
        classifier.FEATURES, classifier.HIDDEN = (8,) * 5, (16, 8)
        terminal.catch_interrupts()
        terminal.open_streams()
        cli.run(lambda _: serve.main(sys.argv[1:]))
    """
    command = [sys.executable, "-c", script, str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading and compiling ...\n"
        (address,) = re.findall(r"http://\S+", process.stdout.readline())
        with urllib.request.urlopen(f"{address}/predict", picture.read_bytes(), timeout=60) as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"


# In a browser.


@pytest.fixture
def served(answerer: Answerer) -> Iterator[str]:
    """The page's address, at a server of this process."""
    import uvicorn

    from jaxfood.serving.app import make_app

    config = uvicorn.Config(make_app(answerer, "run", ("127.0.0.1",)), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_in_a_browser(served: str, browser: Any, picture: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def text(name: str) -> str:
        return browser.find_element(By.ID, name).text

    def upload(path: Path) -> None:
        browser.find_element(By.ID, "file").send_keys(str(path))

    wait = WebDriverWait(browser, 60)
    browser.set_window_size(1200, 900)
    browser.get(served)
    assert axe_violations(browser) == []
    upload(picture)
    wait.until(lambda _: "%" in text("classes"))
    assert all(name in text("classes") for name in CLASSES)  # as text, the markup in one of them too
    assert browser.find_element(By.ID, "status").get_attribute("textContent").split(", ")[0] in CLASSES  # spoken
    shown = "return ['seen', 'map', 'preview'].map(id => document.getElementById(id).naturalWidth)"
    wait.until(lambda _: browser.execute_script(shown) == [32, 32, 44])
    assert axe_violations(browser) == []

    for button in ("theme", "language"):
        browser.find_element(By.ID, button).click()
    assert browser.find_element(By.TAG_NAME, "h1").text == "盘子里是什么\uff1f"
    assert axe_violations(browser) == []  # contrast in the other theme
    browser.set_window_size(500, 800)
    width = "return [document.documentElement.scrollWidth, innerWidth]"
    scroll, inner = browser.execute_script(width)
    assert scroll <= inner

    browser.get(served)  # it remembers both
    assert browser.find_element(By.ID, "language").text == "English"
    browser.find_element(By.ID, "language").click()
    (tmp_path / "menu.txt").write_text("soup", encoding="utf-8")
    upload(tmp_path / "menu.txt")
    wait.until(lambda _: text("error") == "This cannot be read as a picture: it is a text, no picture.")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(100_000_000)
    upload(tmp_path / "large.jpg")
    wait.until(lambda _: text("error") == "This file is too large (100 MB): 50 MB are the most.")
    assert axe_violations(browser) == []
    upload(picture)
    wait.until(lambda _: "%" in text("classes") and not text("error"))
    logged = [each["message"] for each in browser.get_log("browser")]
    assert [line for line in logged if "/predict - Failed to load resource" not in line] == []  # the refused one
    assert len(logged) == 1
