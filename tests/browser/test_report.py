"""The page as an engineer uses it: what the grid shows, what a cell opens, by mouse and by keyboard."""

import re

import pytest
from msgspec.structs import replace

from harness.history.entry import Entry
from harness.model import Mode, Verdict, Views
from harness.report.html.page import render
from harness.report.result import Run
from tests.browser.runs import WRONG, run

pytestmark = pytest.mark.browser

ISOLATED, END_TO_END = 0, 1


def cell(page, component: str, mode: int = ISOLATED):
    label = re.compile(rf"^{re.escape(component)}, ")
    return page.locator("figure.grid").nth(mode).get_by_role("gridcell", name=label)


def state(page, component: str, mode: int = ISOLATED) -> str:
    return cell(page, component, mode).get_attribute("data-state")


def panel(page):
    return page.get_by_role("dialog")


def changed(made: Run, component: str, **changes) -> Run:
    """With other results of one component, and the conclusion drawn again."""
    results = [replace(r, **changes) if r.component == component else r for r in made.results]
    return replace(Run.from_results(made.golden, made.port, results, made.order), pictures=made.pictures)


def test_the_headline_says_what_is_wrong_first_and_why(show) -> None:
    page = show(run())
    headline = page.locator(".headline")
    assert headline.locator("strong").inner_text().lower() == "fail"
    assert headline.locator("h1").inner_text() == WRONG
    assert "x noise floor" in headline.inner_text()
    assert "explained by: weight used without transposing" in headline.inner_text()


def test_one_fault_is_one_mark_isolated_and_many_end_to_end(show) -> None:
    page = show(run())
    isolated = page.locator("figure.grid").nth(ISOLATED).locator("[data-state=fail]")
    assert isolated.count() == 1
    assert isolated.inner_text() == "✕"
    assert "first" in isolated.get_attribute("class")
    assert page.locator("figure.grid").nth(END_TO_END).locator("[data-state=fail]").count() > 20
    assert state(page, "norm") == "unmeasured"
    assert state(page, "layers.0.self_attn", ISOLATED) == "nothing"
    assert state(page, "layers.0.self_attn", END_TO_END) == "pass"


def test_colours_tell_the_states_apart(show) -> None:
    page = show(run())
    colour = "node => getComputedStyle(node.querySelector('.swatch')).backgroundColor"
    failing, passing = (cell(page, name).evaluate(colour) for name in (WRONG, "embed_tokens"))
    assert failing != passing
    assert "oklab" in failing or "rgb" in failing


def test_a_run_that_fails_for_what_nobody_measured_says_so(show) -> None:
    headline = show(run(wrong="none")).locator(".headline").inner_text()
    assert "FAIL" in headline.upper()
    assert "unmeasured, and not listed: norm" in headline


def test_what_was_said_beforehand_has_marks_of_its_own(show) -> None:
    listed = changed(run(), "norm", listed="fused into the product")
    expected = changed(listed, WRONG, expected="known, see 7", reason="overflows")
    page = show(expected)
    assert state(page, "norm") == "listed"
    assert state(page, WRONG) == "expected"
    cell(page, "norm").click()
    assert "listed: fused into the product" in panel(page).inner_text()
    cell(page, WRONG).click()
    assert "expected to fail: known, see 7" in panel(page).inner_text()


def test_a_cell_opens_its_figures_picture_explanation_and_command(show) -> None:
    made = run()
    page = show(made)
    cell(page, WRONG).click()
    told = panel(page).inner_text()
    shown = max(
        (r for r in made.results if (r.component, r.dtype, r.mode) == (WRONG, "float32", Mode.ISOLATED)),
        key=lambda r: r.over_limit,
    )
    figures = panel(page).locator("table.figures").first.locator("tr").nth(1).locator("td").all_inner_texts()
    error = (shown.error.whole, shown.error.row, shown.error.channel)
    assert [float(f) for f in figures] == pytest.approx(error, rel=0.06)
    assert "explained by: weight used without transposing: error falls to 0.9 x noise floor" in told
    assert "[0, 3, 17]" in told
    assert "-2.25" in told
    assert panel(page).locator("canvas").count() == 1
    assert panel(page).locator("svg.histogram rect").count() == 4
    command = "goldens replay goldens/model.h5 --port my_port:make --include layers.1.self_attn.q_proj "
    assert command + f"--case {shown.case} --dtype float32 --mode isolated" in told


def test_pictures_have_the_colours_of_their_bytes(show) -> None:
    page = show(run())
    cell(page, WRONG).click()
    drawn = (
        panel(page).locator("canvas").evaluate("c => [...c.getContext('2d').getImageData(0, 0, 12, 12).data]")
    )
    pixels = run().pictures[0].maps[0].pixels
    colours = {
        code: {tuple(drawn[4 * i : 4 * i + 4]) for i, c in enumerate(pixels) if c == code}
        for code in set(pixels)
    }
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(colours) == 5


def test_the_command_can_be_copied(show) -> None:
    page = show(run())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cell(page, "lm_head").click()
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("goldens replay goldens/model.h5 --port my_port:make --include lm_head --case ")


def test_words_that_a_shell_would_split_are_quoted(show) -> None:
    page = show(run(cases=("it's a case",), golden="my goldens/model.h5"))
    cell(page, "lm_head").click()
    code = panel(page).locator("code").inner_text()
    assert "'my goldens/model.h5'" in code
    assert """--case 'it'"'"'s a case'""" in code


def test_the_keyboard_goes_everywhere(show) -> None:
    page = show(run())
    cell(page, "embed_tokens").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    focused = "document.activeElement.component"
    assert page.evaluate(focused) == WRONG
    assert page.locator("figure.grid").nth(ISOLATED).locator("[tabindex='0']").count() == 1
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    assert panel(page).locator("h2").inner_text() == WRONG
    assert page.evaluate("document.activeElement.id") == "panel"
    page.keyboard.press("Escape")
    assert not panel(page).is_visible()
    assert page.evaluate(focused) == WRONG
    page.keyboard.press("Control+End")
    assert page.evaluate(focused) == "lm_head"
    page.keyboard.press("Control+Home")
    assert page.evaluate(focused) == "embed_tokens"


def test_the_focus_can_be_seen(show) -> None:
    page = show(run())
    cell(page, "embed_tokens").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_another_dtype_and_case(show) -> None:
    made = run()
    better = [
        replace(r, verdict=Verdict.PASS, error=r.floor) if (r.dtype, r.case) == ("bfloat16", "hello") else r
        for r in made.results
    ]
    page = show(replace(made, results=better))
    page.get_by_label("dtype", exact=True).select_option("bfloat16")
    assert state(page, WRONG) == "fail"
    page.get_by_label("case", exact=True).select_option("hello")
    assert state(page, WRONG) == "pass"
    cell(page, WRONG).click()
    assert "hello · bfloat16 · isolated" in panel(page).inner_text()
    panel(page).get_by_role("button", name="padded").click()
    assert "padded · bfloat16 · isolated" in panel(page).inner_text()
    assert panel(page).locator(".badge").inner_text() == "✕ fail"


def test_drift_along_the_layers(show) -> None:
    page = show(run(layers=5))
    points = page.locator("svg.drift .point")
    assert points.count() == 5
    assert page.locator("svg.drift path.dot.fail").count() == 4
    page.get_by_label("along the layers", exact=True).select_option(label="self_attn.k_proj")
    points.nth(2).click()
    assert panel(page).locator("h2").inner_text() == "layers.2.self_attn.k_proj"


def test_facts_by_family(show) -> None:
    fact = replace(
        run().results[0], component="config.rope_theta", kind="config", case="checkpoint", error=None
    )
    made = run()
    results = [
        fact,
        replace(fact, component="config.vocab_size", verdict=Verdict.FAIL, reason="port 7, reference 8"),
        *made.results,
    ]
    page = show(
        Run.from_results("g.h5", "p:make", results, ["config.rope_theta", "config.vocab_size", *made.order])
    )
    assert page.locator(".headline h1").inner_text() == "config.vocab_size"
    assert f"first wrong step: {WRONG}" in page.locator(".headline").inner_text()
    page.get_by_role("button", name="config").click()
    assert "config.vocab_size" in panel(page).inner_text()
    assert "port 7, reference 8" in panel(page).inner_text()
    assert "config.rope_theta" not in panel(page).inner_text()
    page.keyboard.press("Escape")
    assert "config" in page.evaluate("document.activeElement.textContent")


def test_nothing_from_files_or_users_runs_or_becomes_markup(show) -> None:
    evil = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    made = changed(run(cases=(evil,), golden=evil, port=evil, wrong="none"), "lm_head", verdict=Verdict.FAIL)
    made = replace(changed(made, "lm_head", reason=evil), notes=[evil], recorded={evil: {evil: evil}})
    named = replace(
        made,
        order=[evil if name == "embed_tokens" else name for name in made.order],
        results=[replace(r, component=evil) if r.component == "embed_tokens" else r for r in made.results],
    )
    page = show(named)
    cell(page, "lm_head").click()
    assert evil in panel(page).inner_text()
    page.keyboard.press("Escape")
    embeddings = page.get_by_role("gridcell").first
    embeddings.hover()
    assert evil in page.locator("#tip").inner_text()
    embeddings.click()
    assert panel(page).locator("h2").inner_text() == evil
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(show, scheme: str) -> None:
    page = show(run(), color_scheme=scheme)
    ink, paper = page.evaluate(
        "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor] })()"
    )
    lightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in (ink, paper)]
    assert abs(lightness[0] - lightness[1]) > 180
    assert (lightness[1] > 128) == (scheme == "light")


def test_a_phone_needs_no_sideways_scrolling(show) -> None:
    page = show(run(layers=12), run(wrong="none"), width=375, height=812)
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0
    cell(page, WRONG).first.click()
    assert page.evaluate(overflow) <= 0
    box = panel(page).bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375
    right = "n => n.getBoundingClientRect().right > innerWidth + 1"
    wide = f"[...document.querySelectorAll('#panel *')].filter({right}).length"
    assert page.evaluate(wide) == 0


def test_a_long_name_stays_inside_the_panel(show) -> None:
    long = "config." + 120 * "x"
    fact = replace(run().results[0], component=long, kind="config", verdict=Verdict.FAIL, reason=200 * "y")
    page = show(Run.from_results("g.h5", "p:make", [fact], [long]), width=375, height=812)
    page.get_by_role("button", name="config").click()
    assert panel(page).evaluate("panel => panel.scrollWidth <= panel.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_several_files_are_listed_and_each_has_its_own_grid(show) -> None:
    page = show(run(golden="a.h5"), run(golden="b.h5", wrong="none"))
    assert page.locator("nav a").count() == 2
    assert page.locator("section.run").count() == 2
    assert page.locator("section.run").nth(1).locator("[role=gridcell][data-state=fail]").count() == 0
    page.locator("nav a").nth(1).click()
    assert page.evaluate("location.hash") == "#run-1"


def test_runs_before_this_one(show) -> None:
    now = run()

    def entry(day: int, factor: float, **changes) -> Entry:
        """A run in which every error was `factor` limits."""
        error = Views(factor, factor, factor)
        results = [
            replace(r, error=error, limit=Views(1, 1, 1), verdict=Verdict.PASS) if r.error else r
            for r in now.results
        ]
        then = replace(now.environment, time=f"2026-11-{day}T18:02:11+00:00")
        return Entry.of(replace(now, results=results, environment=then, **changes))

    history = [entry(20, 0.2), entry(21, 0.9, golden="other.h5"), entry(22, 0.4), Entry.of(now)]
    page = show(now, history=history)
    cell(page, WRONG).click()
    assert "Before: 0.4, in the run of 2026-11-22 18:02, commit 3841170d1c0b." in panel(page).inner_text()
    assert panel(page).locator("svg.sparkline path.error").get_attribute("d").count("L") == 2


def test_it_prints_without_what_only_a_screen_can(show) -> None:
    page = show(run())
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible()
    assert page.locator(".headline").is_visible()
    assert len(page.pdf()) > 10_000


def test_a_run_in_which_nothing_was_compared(show) -> None:
    page = show(Run.from_results("empty.h5", "p:make", [], []))
    assert page.locator(".headline strong").inner_text().lower() == "unmeasured"


def test_a_large_model_stays_small_and_quick(show, capsys) -> None:
    from tests.browser.runs import picture

    cases = tuple(f"case-{i}" for i in range(10))
    made = run(layers=64, cases=cases)
    pictures = [
        picture(name, cases[0], dtype, mode, size=64)
        for dtype in ("float32", "bfloat16")
        for mode in (Mode.ISOLATED, Mode.END_TO_END)
        for name in made.order[:40]
    ]
    made = replace(made, pictures=pictures)
    size = len(render([made]).encode())
    assert size < 5e6
    page = show(made)
    cell(page, "layers.63.self_attn.q_proj", END_TO_END).click()
    assert "layers.63.self_attn.q_proj" in panel(page).inner_text()
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    with capsys.disabled():
        print(f"\n{len(made.results)} results: {size / 1e6:.2f} MB, ready after {ready / 1000:.1f} s")
