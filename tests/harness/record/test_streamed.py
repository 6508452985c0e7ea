"""A model that is cast layer by layer as it runs is recorded bit for bit as one that is loaded whole."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from harness.checkpoints import read_config  # noqa: E402
from harness.errors import GoldensError  # noqa: E402
from harness.record import evaluations, reference  # noqa: E402
from harness.record.capture import Passes  # noqa: E402
from harness.record.discover import discover  # noqa: E402
from harness.record.keep import parse  # noqa: E402
from harness.record.paced import Paced  # noqa: E402
from harness.record.recorder import Request, Silent, case_tensors, record  # noqa: E402
from harness.record.resumed import Resuming  # noqa: E402
from harness.record.sections import sections  # noqa: E402
from harness.record.watch import Product  # noqa: E402
from harness.store.parts import Parts  # noqa: E402
from harness.store.reader import GoldenFile  # noqa: E402
from tests.harness.record.test_recorder import inputs, make_checkpoint  # noqa: E402

CASES = (inputs(), inputs("short", batch=1, length=5, pad=0, seed=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stored in bfloat16."""
    folder = make_checkpoint(tmp_path_factory.mktemp("streamed") / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def recorded(folder, path, memory):
    config = read_config(folder)
    request = Request(str(folder), "folder", folder, config, CASES, ("float32",), parse([]), memory=memory)
    record(request, path, Silent())
    return GoldenFile.open(path)


def test_layer_by_layer_is_bit_for_bit_the_same(folder, tmp_path):
    assert reference.loaded_as(folder, "float32", 0) == "bfloat16"
    whole, streamed = (recorded(folder, tmp_path / f"{m}.h5", m) for m in (10**9, 0))
    assert whole.digest == streamed.digest


def test_in_parts_it_is_the_same_too(folder, tmp_path):
    """Layer by layer, in parts of one case, and of two dtypes."""
    config, told = read_config(folder), []
    request = Request(
        str(folder), "folder", folder, config, CASES, ("float32", "bfloat16"), parse([]), memory=0
    )
    record(request, tmp_path / "whole.h5", Silent())
    parts = Parts(tmp_path / "parts", told.append)
    record(request, tmp_path / "joined.h5", Silent(), Resuming(request, parts))
    whole, joined = (GoldenFile.open(tmp_path / name) for name in ("whole.h5", "joined.h5"))
    assert joined.digest == whole.digest
    assert joined.tensors == whole.tensors
    parts.refuse_unless_in(joined)
    again = Parts(tmp_path / "parts", told.append)
    record(request, tmp_path / "again.h5", Silent(), Resuming(request, again))
    assert told == ["resumed: 4 of 4 parts were there"]
    assert GoldenFile.open(tmp_path / "again.h5").digest == whole.digest


def test_what_was_cast_is_dropped(folder):
    decoder = reference.decoder(folder, "float32", 0)
    discover(decoder)
    assert {parameter.dtype for parameter in decoder.model.parameters()} == {torch.bfloat16}
    with decoder.parameters.held(decoder.layers[0]):
        assert {parameter.dtype for parameter in decoder.layers[0].parameters()} == {torch.float32}
        assert {parameter.dtype for parameter in decoder.layers[1].parameters()} == {torch.bfloat16}
    assert decoder.parameters["lm_head.weight"].dtype == torch.float32


def test_products_in_parts_have_the_same_floors(folder, tmp_path, monkeypatch):
    whole = recorded(folder, tmp_path / "whole.h5", None)
    monkeypatch.setattr(evaluations, "AT_ONCE", 300)
    parts = recorded(folder, tmp_path / "parts.h5", None)
    for one, other in zip(whole.contents.goldens, parts.contents.goldens, strict=True):
        if one.isolated is not None:
            assert other.isolated.measured.whole == pytest.approx(one.isolated.measured.whole, rel=1e-4)
            # squares are multiplied to a few digits, and a small part otherwise than a large one
            assert other.isolated.modelled.channel == pytest.approx(one.isolated.modelled.channel, rel=2e-3)
        assert other.end_to_end.measured.row == pytest.approx(one.end_to_end.measured.row, rel=1e-6)


def passes_of(folder):
    decoder = reference.decoder(folder, "float32")
    components = [component for component in discover(decoder) if not component.cached]
    return decoder, components, Passes(decoder, components, [case_tensors(case) for case in CASES])


def reach_the_end(passes, components):
    for section in sections(components):
        passes.reach(section)


def test_a_product_of_another_module_is_evaluated_again(folder):
    """Only torch's own Linear is proved by having been seen."""
    decoder, components, passes = passes_of(folder)
    wrong = decoder.layers[1].mlp.up_proj
    wrong.forward = lambda x: torch.nn.functional.linear(x, wrong.weight) * 1.5
    with passes, pytest.raises(GoldensError, match=r"layers\.1\.mlp\.up_proj of .* is not the step"):
        reach_the_end(passes, components)


def test_what_is_written_over_in_place_is_refused(folder):
    """All that passes by holds, with the numbers that are there by then: others were written into the file."""
    decoder, components, passes = passes_of(folder)

    def double(_, args):
        args[0].mul_(2)

    decoder.layers[1].register_forward_pre_hook(double)
    with passes, pytest.raises(GoldensError, match=r"layers\.0\.mlp_residual of .* is written over later"):
        reach_the_end(passes, components)


@pytest.mark.parametrize("written", ["x", "output"])
def test_a_product_of_what_was_written_over_is_not_taken_for_seen(written):
    """The same place in memory, and other numbers."""
    with torch.no_grad():
        x = torch.ones(2, 3)
        output = torch.nn.functional.linear(x, torch.ones(4, 3))
        product = Product.of(x, output)
        assert product.is_of(x, output)
        {"x": x, "output": output}[written].add_(1)
        assert not product.is_of(x, output)


def test_a_call_that_is_left_ends():
    reached = []

    def call():
        for number in range(3):
            reached.append(number)
            paced.stop()

    paced = Paced(call)
    paced.go_on()
    paced.go_on()
    paced.close()
    assert reached == [0, 1]


def test_an_error_comes_out_where_the_call_is_told_to_go_on():
    paced = Paced(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        paced.go_on()
    paced.close()
