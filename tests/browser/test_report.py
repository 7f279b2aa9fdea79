"""The metrics' report in a headless Chromium that has no network."""

from pathlib import Path

import pytest
from pack.dev.browser import open_page
from pack.infinite_id.metrics import report
from pack.infinite_id.metrics.evaluate import evaluate
from pack.infinite_id.metrics.features import Nets, Store
from pack.infinite_id.metrics.material import Material, Picture
from pack.tests.unit.test_metrics_report import StandIn, StandInClip, encode

PICTURES, SHOWN = 120, 50


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    photos = {f"person {n}": [folder / f"photo {n} {i}.png" for i in range(2)] for n in range(10)}
    text = "on <b>the</b> beach"
    pictures = [
        Picture("ab"[n % 2], f"person {n % 10}", "beach", str(n), text, folder / f"{n}.png")
        for n in range(PICTURES)
    ]
    every = [*(p.path for p in pictures), *(path for own in photos.values() for path in own)]
    for n, path in enumerate(every):
        path.write_bytes(encode(n))
    nets, store = Nets([StandIn()], StandInClip()), Store(folder / "features.sqlite")
    report.write_all(folder, evaluate(Material(pictures, photos), nets, store, folder), nets, "a")
    store.close()
    return folder / report.HTML


def test_the_report_needs_no_network(page_file: Path) -> None:
    with open_page("about:blank") as page:
        asked, errors = [], []
        page.context.set_offline(True)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(page_file.as_uri())
        rows = page.locator("#rows tr")
        assert rows.count() == SHOWN
        first = rows.first.inner_text()
        page.click("#next")
        page.click("#next")
        assert rows.count() == PICTURES - 2 * SHOWN
        assert rows.first.inner_text() != first
        page.fill("#filter", "person 3")
        assert rows.count() == PICTURES // 10
        assert {text.split("\t")[1] for text in rows.all_inner_texts()} == {"person 3"}
        shown = "images => images.every(image => image.complete && image.naturalWidth > 0)"
        assert page.locator("figure img").evaluate_all(shown)
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert errors == []
