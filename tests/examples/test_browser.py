"""The page that protects a photograph in the browser, in a headless Chromium: the bytes that the package gives."""

import functools
import http.server
import io
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semtransforms import SEM_ONE_PASS, NoiseGenerator
from semtransforms.core.keys import image_keys
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.one_pass import random_field
from semtransforms.views.resize import NoiseScale

HERE = Path(__file__).parents[2] / "examples" / "browser"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 240_000  # milliseconds: what hangs, hangs so long
CLASSES = ["cat", "dog", "ship"]
SEED = "123456789012345678901234567890"

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")


@pytest.fixture(scope="module")
def chromium(playwright_engine):
    browser = playwright_engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page's folder, which a test may add to, and its address."""
    folder = tmp_path_factory.mktemp("browser")
    for path in HERE.glob("*.*"):
        if path.suffix in {".html", ".js", ".css"}:
            shutil.copy(path, folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def packages(served):
    """The folder, with what npm installs."""
    if not all((HERE / "node_modules" / name).is_dir() for name in ("onnxruntime-web", "@noble/hashes")):
        pytest.skip("needs onnxruntime-web and @noble/hashes: npm install in examples/browser")
    folder, _ = served
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    return folder


@pytest.fixture(scope="module")
def generator(packages):
    """A generator with freshly drawn weights, whose ONNX file lies beside the page."""
    pytest.importorskip("onnxscript", reason="needs onnx and onnxscript: pip install 'semtransforms[onnx]'")
    folder = packages
    config = replace(SEM_ONE_PASS, num_classes=3, image_size=(32, 32), eot=())
    painter = build_surrogate(config)
    with torch.no_grad():
        painter.head.weight.mul_(30)
    made = NoiseGenerator(painter, config, classes=CLASSES)
    made.export_onnx(folder / "generator.onnx")
    return made


@pytest.fixture
def page(chromium, served):
    with chromium.new_context(accept_downloads=True) as context:
        opened = context.new_page()
        opened.set_default_timeout(SECONDS)
        yield opened


def photograph(height: int, width: int) -> np.ndarray:
    """Slopes with grain: all levels, and edges in both directions."""
    draw = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    return np.clip(slopes + draw.normal(0, 20, slopes.shape), 0, 255).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def opened(page, served) -> None:
    page.goto(served[1])
    playwright.expect(page.locator("#status")).to_have_text("Ready. Drop a photograph.", timeout=SECONDS)


def drop(page, name: str, content: bytes) -> None:
    """Let go of a file over the page, as a mouse does."""
    page.evaluate(
        """([name, content]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(content)], name));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [name, list(content)],
    )


def test_whole_numbers_are_the_packages(page, served, packages):
    """Another digest, another draw or another shrunk copy, and the seed gives a noise that the package never gave."""
    page.goto(served[1] + "page.css")
    for height, width, side in ((5, 7, 32), (40, 61, 16), (97, 64, 32), (64, 333, 33)):
        array = photograph(height, width)
        image = planes(array)
        scale = NoiseScale(side, 8)
        small = scale.shrink(image)
        found = page.evaluate(
            """async ([bytes, height, width, side, seed]) => {
                const { imageKey, randomField } = await import("/keys.js");
                const { madeAt, shrink } = await import("/resize.js");
                const size = madeAt(height, width, side);
                const planes = Uint8Array.from(bytes);
                const field = randomField(imageKey(planes, height, width, 2, seed), 1000);
                return [size, [...field], [...shrink(planes, height, width, ...size)]];
            }""",
            [image.flatten().tolist(), height, width, side, SEED],
        )
        keys = image_keys(image[None], torch.tensor([2]), int(SEED))
        assert found[0] == list(small.shape[1:])
        assert found[1] == random_field(keys, 20, 100).flatten()[:1000].tolist()
        assert found[2] == small.flatten().tolist()


def test_enlarged_noise_is_the_packages(page, served):
    """It is what is published. Where a sum lies at half a level, 32-bit floats decide, and builds of torch differ."""
    page.goto(served[1] + "page.css")
    draw = torch.Generator().manual_seed(0)
    for height, width, side in ((61, 40, 16), (96, 96, 32), (200, 301, 32)):
        image = planes(photograph(height, width))
        scale = NoiseScale(side, 8)
        noise = torch.randint(-8, 9, scale.shrink(image).shape, generator=draw).to(torch.int8)
        found = page.evaluate(
            """async ([bytes, height, width, noise, noiseHeight, noiseWidth]) => {
                const { addEnlarged } = await import("/resize.js");
                const levels = Int8Array.from(noise);
                return [...addEnlarged(Uint8Array.from(bytes), height, width, levels, noiseHeight, noiseWidth, 8)];
            }""",
            [image.flatten().tolist(), height, width, noise.flatten().tolist(), *noise.shape[1:]],
        )
        off = (torch.tensor(found) - scale.add(noise, image).flatten().int()).abs()
        assert int(off.max()) <= 1
        assert int((off > 0).sum()) <= len(off) / 500


@pytest.mark.parametrize(("height", "width"), [(32, 32), (21, 30), (150, 231)])
def test_a_dropped_photograph_comes_back_as_the_package_protects_it(page, served, generator, height, width):
    """Decoding, key, field, network, enlarging and PNG; and nobody is asked for anything meanwhile."""
    array = photograph(height, width)
    asked = []
    page.on("request", lambda request: asked.append((request.method, request.url)))
    opened(page, served)
    before = len(asked)
    page.locator("#label").select_option("dog")
    page.locator("#seed").fill(f"  0{SEED}")
    drop(page, "holiday.png", png(array))
    playwright.expect(page.locator("#status")).to_contain_text("Done: no byte of it is further than 8 of 255")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "holiday-protected.png"
    saved = Image.open(download.value.path())
    assert saved.mode in {"RGB", "RGBA"}
    found = planes(np.asarray(saved.convert("RGB"))).int()

    image = planes(array)
    wanted = generator.protect(image[None], [1], seed=int(SEED))[0].int()
    assert int((found - image.int()).abs().max()) <= 8
    off = (found - wanted).abs()
    assert int(off.max()) <= 1
    assert (off > 0).float().mean() <= 1e-3  # one other level of small noise is those of many pixels
    assert ((found - image.int()) != 0).float().mean() > 0.5
    assert [url for _, url in asked[before:] if not url.startswith("blob:")] == []
    assert {method for method, _ in asked} == {"GET"}


def test_what_is_no_photograph_is_said(page, served, generator):
    """Else the page would wait for ever, or give back a file that is not protected."""
    opened(page, served)
    status = page.locator("#status")
    see_through = np.dstack([photograph(20, 20), np.full((20, 20), 128, np.uint8)])
    for name, content, words in (
        ("notes.txt", b"no picture", "notes.txt is no photograph that this browser can read"),
        ("cut.png", png(photograph(64, 64))[:40], "cut.png is no photograph"),
        ("logo.png", png(see_through), "logo.png is see-through in places"),
        ("wide.png", png(np.zeros((1, 17_000, 3), np.uint8)), "wide.png is 17000 × 1 pixels; at most 50 megapixels"),
    ):
        drop(page, name, content)
        playwright.expect(status).to_contain_text(words, timeout=SECONDS)
        playwright.expect(page.locator("#result")).to_be_hidden()
    drop(page, "good.png", png(photograph(40, 40)))
    playwright.expect(status).to_contain_text("Done")
    page.locator("#seed").fill("my secret")
    page.locator("#seed").blur()
    playwright.expect(status).to_contain_text("The seed must be a whole number")
    playwright.expect(page.locator("#result")).to_be_hidden()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("WebAssembly.validate = () => false", "This browser has no WebAssembly SIMD"),
        (
            "const given = OffscreenCanvasRenderingContext2D.prototype.getImageData;"
            "OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...where) {"
            "  const found = given.apply(this, where); found.data[5] ^= 1; return found; }",
            "This browser changes the pixels that a page reads",
        ),
    ],
    ids=["no SIMD", "changed pixels"],
)
def test_a_browser_that_cannot_says_so(page, served, spoil, words):
    """Without SIMD the runtime fails with words that help nobody; changed pixels are no longer the photograph's."""
    page.add_init_script(spoil)
    page.goto(served[1])
    playwright.expect(page.locator("#status")).to_contain_text(words, timeout=SECONDS)
    playwright.expect(page.locator("#file")).to_be_disabled()


def test_a_file_of_somebody_else_is_refused(page, served):
    """Without its facts the page would guess classes and size, and give noise of another kind."""
    page.goto(served[1] + "page.css")
    for content in ([], [1, 2, 3], [8, 9, 114, 200]):
        said = page.evaluate(
            """async (content) => {
                const { factsOf } = await import("/model.js");
                try { return factsOf(Uint8Array.from(content)); } catch (error) { return error.message; }
            }""",
            content,
        )
        assert "export_onnx did not write it" in said
