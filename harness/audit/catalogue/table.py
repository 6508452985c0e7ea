"""Every fault that can be planted in any port, by its contract or its checkpoint."""

from harness.audit.catalogue import (
    attention,
    chat_template,
    config,
    ends,
    generation,
    loading,
    mlp,
    norms,
    platform,
    rotary,
    sampling,
    sharding,
    softmax,
    tokenizer,
    understood,
    weights,
    wiring,
)
from harness.audit.fault import Fault

OF_PASSES: tuple[Fault, ...] = (
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
    *sharding.FAULTS,
)
"""Faults in what is computed: components show them."""

OF_FACTS: tuple[Fault, ...] = (
    *understood.FAULTS,
    *tokenizer.FAULTS,
    *chat_template.FAULTS,
    *sampling.FAULTS,
    *generation.FAULTS,
)
"""Faults in what a port does beside: only facts show them."""

FAULTS = (*OF_PASSES, *OF_FACTS)
