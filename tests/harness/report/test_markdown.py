"""A run as Markdown: what a person reads first, within what GitHub takes, and nothing in it that acts as Markdown."""

from html.parser import HTMLParser

from markdown_it import MarkdownIt
from msgspec.structs import replace

from harness.model import Mode, Verdict
from harness.report.markdown import LIMIT, code, prose, render
from harness.report.result import Run
from tests.browser import runs
from tests.harness.report.test_result import ORDER, result

NASTY = "a|b `c` <b>bold</b> *d* _e_ [f](g) ~~h~~ $i$ &lt; \\| # j\nk"


class Read(HTMLParser):
    """Rows of tables, and which tags there are."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._cell = False
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def concluded(*results, **changes) -> Run:
    made = Run.from_results("tiny.h5", "port:make", results, ORDER)
    return replace(made, **changes)


def test_what_is_wrong_first_stands_first() -> None:
    text = render([runs.run(wrong="none", golden="good.h5"), runs.run()])
    lines = [line for line in text.splitlines() if line]
    assert lines[0] == "## goldens: 2 golden files, 2 of them do not hold"
    assert lines[3].startswith("**`layers.1.self_attn.q_proj`** hello float32 isolated: **error ")
    assert "- explained by: weight used without transposing: error falls to 0.9 x noise floor" in lines
    assert "- first wrong component in forward order (20 of 57 before it pass)" in lines
    again = (
        "- again: `goldens replay goldens/model.h5 --port my_port:make --include layers.1.self_attn.q_proj "
    )
    assert again + "--case hello --dtype float32 --mode isolated`" in lines


def test_verdicts_are_counted_by_dtype_and_mode_and_expected_failures_apart() -> None:
    run = concluded(
        result("embed_tokens"),
        result("layers.0.q_proj", Verdict.FAIL),
        result("lm_head", Verdict.FAIL, expected="known since spring"),
        result("layers.2.q_proj", Verdict.UNMEASURED, reason="no such step", listed="fused"),
        result("lm_head", mode=Mode.END_TO_END),
    )
    text = render([run])
    rows = Read(text).rows
    assert ["float32", "isolated", "1", "1", "1", "1", "2.5e+06", "layers.0.q_proj (hello)"] in rows
    assert ["float32", "end-to-end", "1", "0", "0", "0", "0.25", "lm_head (hello)"] in rows
    assert "1 pass, 2 fail" not in text
    assert "2 pass, 2 fail (1 expected), 1 unmeasured (1 listed)" in text.replace("\\", "")
    assert "<summary>1 that fail</summary>" in text
    assert "<summary>1 that fail as expected</summary>" in text
    assert "expected: known since spring" in text
    assert "float32 isolated: no such step; listed: fused: `layers.2.q_proj`" in text


def test_what_holds_is_said_to_and_nothing_is_not() -> None:
    assert render([concluded(result())]).startswith("## goldens: 1 golden file, it holds\n")
    assert render([]).startswith("## goldens: nothing was compared")
    assert "tiny.h5`: does not hold" in render([concluded()])


def test_nothing_in_it_is_markdown_or_html() -> None:
    read = Read(f"| x | y |\n|---|---|\n| {prose(NASTY)} | {code(NASTY)} |\n")
    plain = " ".join(NASTY.split())
    assert read.rows[1] == [plain, plain]
    assert read.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert Read(f"| x |\n|---|\n| {code('a|b_c')} |\n").rows[1] == ["a|b_c"]
    assert Read(code("layers.0.self_attn.q_proj")).tags == {"p", "code"}
    nasty = result(NASTY, Verdict.FAIL, case=NASTY, dtype=NASTY, reason=NASTY, kind=NASTY)
    run = Run.from_results(NASTY, NASTY, [nasty], [NASTY])
    run = replace(run, notes=[NASTY], recorded={NASTY: {NASTY: NASTY}})
    read = Read(render([run]))
    assert read.tags <= {
        *("h2", "h3", "p", "strong", "ul", "li", "code", "details", "summary"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert {len(row) for row in read.rows} == {8, 5, 2}


def test_however_much_there_is_it_stays_below_the_limit_and_says_what_is_left_out() -> None:
    many = [
        result("lm_head", verdict, case=f"case {i}", reason="x" * 5000)
        for verdict in (Verdict.FAIL, Verdict.UNMEASURED)
        for i in range(3000)
    ]
    run = concluded(*many, notes=["y" * 5000] * 100)
    text = render([run])
    assert " and 2970 more" in text
    assert len(text.encode()) < 40_000
    hundred = render([concluded(result(), golden="good.h5"), *[run] * 100])
    assert len(hundred.encode()) < LIMIT + 1000
    assert hundred.splitlines()[-1].startswith("There is no room here for ")
    assert "good.h5" not in hundred
