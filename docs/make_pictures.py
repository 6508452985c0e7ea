"""Writes docs/images/report-light.png and report-panel.png: the report of a port with a mistake, in a browser.

    python docs/make_pictures.py             # or: make pictures

Needs the extra [dev], and a Chromium on the path or named by CHROMIUM. The port is `tests.ports:seed_rule`, whose
loader does not transpose the square projections of attention.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).with_name("images")
REPLAY = ("replay", "goldens/qwen2-deep.h5", "--port", "tests.ports:seed_rule", "--report")
SIZE = {"width": 1280, "height": 800}
WRONG = "layers.0.self_attn.q_proj, "


def main() -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        goldens = [sys.executable, "-m", "harness.cli", *REPLAY, str(report)]
        subprocess.run(
            goldens, cwd=ROOT, stdout=subprocess.DEVNULL, check=False
        )  # it does not hold: that is shown
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(report.as_uri())
        page.wait_for_selector("body[data-ready]")
        _write(page, "report-light.png")
        page.get_by_role("gridcell", name=WRONG).first.click()
        page.mouse.move(0, 0)
        _write(page, "report-panel.png")
        browser.close()


def _write(page: Page, name: str) -> None:
    page.screenshot(path=IMAGES / name)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1e3:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
