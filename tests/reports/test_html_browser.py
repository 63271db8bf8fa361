"""The report in a real browser without access to a network."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.reports.html import to_html
from tests.parity.stand_ins import with_noise
from tests.reports.test_html import layer_report, result_of, side

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
WIDTH, HEIGHT = 1200, 3600
# The colors in the style sheet of the first layer that differs and of a missed box.
FIRST_LAYER, MISSED_BOX = (209, 59, 79), (255, 59, 87)

pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium here: whether the report shows its charts and pictures stays unseen",
)


@pytest.fixture(scope="module")
def screenshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "report.html"
    page.write_text(to_html(result_of(side(with_noise(0.05)), layers=layer_report())))
    target = folder / "report.png"
    subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={target}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    return np.asarray(Image.open(target).convert("RGB"))


def share_of(pixels, color) -> float:
    return float((np.abs(pixels.astype(int) - color).max(axis=-1) <= 2).mean())


def test_the_page_fills_the_window(screenshot):
    assert screenshot.shape[1] == WIDTH
    rows = screenshot.reshape(len(screenshot), -1)
    blank = (rows == rows[:, :1]).all(axis=1)
    assert blank[-1] or not blank[len(blank) // 2]
    assert (~blank).mean() > 0.1


def test_charts_are_drawn(screenshot):
    assert share_of(screenshot, FIRST_LAYER) > 1e-5


def test_pictures_are_shown_with_boxes_on_them(screenshot):
    colors = np.unique(screenshot.reshape(-1, 3), axis=0)
    # A page of text and charts has hundreds of colors, photographs have tens of thousands.
    assert len(colors) > 10_000
    assert share_of(screenshot, MISSED_BOX) > 1e-4
