"""Recording a RoPE that is scaled: what the reference keeps from one text reaches no other."""

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.harness.record.test_recorder import inputs, make_checkpoint, make_golden, run_reference

SCALINGS = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 4},
    "llama3": {
        "factor": 8.0,
        "original_max_position_embeddings": 4,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}
LENGTHS = {"short": 5, "long": 24, "middle": 9}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rope_type", SCALINGS)
def test_every_text_is_recorded_as_if_it_were_the_only_one(tmp_path, rope_type, dtype):
    """Of three texts the second is longer than the third: a dynamic rope would still be stretched for it."""
    rope = {"rope_type": rope_type, "rope_theta": 1e4, **SCALINGS[rope_type]}
    folder = make_checkpoint(tmp_path / "model", rope_parameters=rope, max_position_embeddings=6)
    cases = [inputs(name, length=length, seed=n) for n, (name, length) in enumerate(LENGTHS.items())]
    file = make_golden(folder, tmp_path / "g.h5", cases=cases, dtypes=(dtype,))
    for case in cases:
        [golden] = file.select(["lm_head"], (), [case.name], ())
        expected = run_reference(folder, case, dtype).logits
        np.testing.assert_array_equal(file.output(golden).astype(np.float32), expected.float().numpy())
