"""A failing test says what explains it."""

from collections.abc import Callable
from pathlib import Path

import pytest

# Before pytester takes stock: it forgets what a run imports, and JAX cannot be imported twice in a process.
import tests.ports
import tests.robust.not_finite  # noqa: F401

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
ROOT = Path(__file__).parents[2]

BUILT_IN = """
    import pytest

    @pytest.mark.goldens("{golden}", cases={cases}, dtypes="float32", include="{include}", modes="{mode}")
    def test_component(goldens, port):
        goldens.check(port)
"""


@pytest.fixture
def failing(project: pytest.Pytester) -> Run:
    """Run a parity test on a built-in golden file and a port with a mistake."""

    def run(
        port: str, include: str, cases: str = '"left-padded"', mode: str = "isolated"
    ) -> pytest.RunResult:
        golden = ROOT / "goldens" / "qwen2-tiny.h5"
        text = BUILT_IN.format(golden=golden, include=include, cases=cases, mode=mode)
        project.makeini(f"[pytest]\ngoldens_port = {port}\n")
        project.makepyfile(test_parity=text)
        return project.runpytest("-p", "no:cacheprovider", "-rN")

    return run


def test_a_mistake_is_named(failing: Run) -> None:
    result = failing("tests.ports:seed_rule", "layers.0.self_attn.[qk]_proj")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "error * x limit: weight_not_transposed   layers.0.self_attn.q_proj   left-padded float32 isolated   FAIL",
            "  explained by: weight used without transposing * error falls to * x noise floor",
            "  golden: *",
        ]
    )


def test_it_is_said_in_every_case_that_fails(failing: Run) -> None:
    cases = '["left-padded", "far"]'
    result = failing("tests.ports:seed_rule", "layers.0.self_attn.q_proj", cases)
    result.assert_outcomes(failed=2)
    told = [line for line in result.outlines if line.startswith("  explained by: weight used without")]
    assert len(told) == 2


def test_what_has_no_name_is_described(failing: Run) -> None:
    result = failing("tests.ports:one_wrong_element", "layers.2.mlp.down_proj")
    result.stdout.fnmatch_lines(
        ["  only channel 5 of 112 is wrong; as if weight[[]5, 7[]] were larger by 0.01*"]
    )
    result.stdout.no_fnmatch_line("*explained by*")


def test_what_only_follows_from_another_component_is_not_explained(failing: Run) -> None:
    result = failing("tests.ports:without_key_bias", "lm_head", mode="end-to-end")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*explained by*")


def test_a_pass_has_no_explanation(failing: Run) -> None:
    result = failing("qwen_flax.port:make", "layers.0.self_attn.q_proj")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*explained by*")
    result.stdout.no_fnmatch_line("*not explained*")


def test_without_the_recorded_checkpoint_it_fails_all_the_same(project: pytest.Pytester, parity: Run) -> None:
    """A port that is handed to `check` needs no checkpoint; its failures are then told without an explanation."""
    body = """
        import pytest
        from tests.fakes import make_faulty

        @pytest.fixture
        def port():
            return make_faulty("", dtype="float32")

        @pytest.mark.goldens("tiny.h5", cases="hello", dtypes="float32", include="*.q_proj", modes="isolated")
        def test_component(goldens, port):
            goldens.check(port)
    """
    (project.path / "checkpoint").rename(project.path / "elsewhere")
    project.makepyfile(test_parity=body)
    result = project.runpytest("-p", "no:cacheprovider", "-rN")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["error *   layers.0.q_proj   hello float32 isolated   FAIL", "  not explained: *which is not there*"]
    )


def test_what_explains_one_port_is_not_said_of_another(project: pytest.Pytester) -> None:
    golden, checkpoint = ROOT / "goldens" / "qwen2-tiny.h5", ROOT / "goldens" / "checkpoints" / "qwen2-tiny"
    project.makepyfile(
        test_parity=f"""
        import pytest
        from tests import ports

        marked = pytest.mark.goldens("{golden}", cases="left-padded", dtypes="float32", modes="isolated",
                                     include="layers.1.self_attn.[qk]_proj")

        @marked
        def test_loader(goldens):
            goldens.check(PORTS["seed_rule"])

        @marked
        def test_bias(goldens):
            goldens.check(PORTS["without_key_bias"])

        PORTS = {{name: getattr(ports, name)("{checkpoint}", dtype="float32")
                 for name in ("seed_rule", "without_key_bias")}}
        """
    )
    result = project.runpytest("-p", "no:cacheprovider", "-rN")
    result.assert_outcomes(passed=2, failed=2)
    told = [line.strip() for line in result.outlines if line.startswith("  explained by")]
    assert [line.partition(":")[2].partition("(")[0].partition(":")[0].strip() for line in told] == [
        "weight used without transposing",
        "bias not added",
    ]


def test_where_nan_first_arose_is_said_in_every_test_that_has_some(failing: Run) -> None:
    """Each of them only takes it on, and would else name itself."""
    result = failing("tests.robust.not_finite:from_a_weight", "layers.1.mlp.*_proj", mode="end-to-end")
    result.assert_outcomes(passed=1, failed=2)
    where = "in layers.1.mlp.up_proj (left-padded float32): nan at *, channel 7"
    sentence = f"NaN or infinity first arose end to end {where}"
    told = [line for line in result.outlines if "first arose" in line]
    assert len(told) == 3, "in each test, and behind all of them"
    result.stdout.fnmatch_lines([f"  {sentence}; of 1 before it none has any, of those after it 1"] * 2)
    result.stdout.fnmatch_lines([f"    {sentence}*"])


def test_where_nan_first_arose_by_itself(failing: Run) -> None:
    result = failing("tests.robust.not_finite:from_a_weight", "layers.1.mlp.up_proj")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["  NaN or infinity first arose isolated in layers.1.mlp.up_proj (left-padded *"]
    )
