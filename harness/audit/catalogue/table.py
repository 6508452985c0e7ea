"""Every fault that can be planted in any port, by its contract or its checkpoint."""

from harness.audit.catalogue import (
    attention,
    config,
    ends,
    loading,
    mlp,
    norms,
    platform,
    rotary,
    softmax,
    weights,
    wiring,
)
from harness.audit.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *weights.FAULTS,
    *loading.FAULTS,
    *ends.FAULTS,
    *norms.FAULTS,
    *rotary.FAULTS,
    *attention.FAULTS,
    *softmax.FAULTS,
    *mlp.FAULTS,
    *wiring.FAULTS,
    *config.FAULTS,
    *platform.FAULTS,
)
