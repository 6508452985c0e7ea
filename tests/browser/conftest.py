"""Reports in a real browser: the system's Chromium, without a network."""

import os
import shutil

import pytest

from harness.report.html.page import render

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    if path is None:
        missing = f"no Chromium: none of {', '.join(NAMES)} is on the path, and CHROMIUM names none"
        if os.environ.get("GOLDENS_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield launched
        launched.close()


@pytest.fixture
def show(browser, tmp_path):
    """`show(run, ...)` opens the report of runs from disk; it fails the test that the page complains of anything.

    What the browser is to be: `width`, `height`, `color_scheme`.
    """
    contexts, complaints = [], []

    def show(*runs, history=(), width=1400, height=900, color_scheme="light"):
        path = tmp_path / "report.html"
        path.write_text(render(runs, history), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=color_scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url == path.as_uri() or complaints.append(asked.url))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []
