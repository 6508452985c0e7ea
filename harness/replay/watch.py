"""What does not come back. What XLA runs hears no signal, so no exception ends it: the command leaves."""

import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Timer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """seconds: how long a port may take for one answer; None: as long as it likes."""

    seconds: float | None = None

    @contextmanager
    def over(self, asked: str) -> Iterator[None]:
        """Inside, when the time is over, the process ends with a sentence and exit status 2."""
        if self.seconds is None:
            yield
            return
        sentence = (
            f"the port did not come back from {asked} within {self.seconds:g} s: mend what does not end there, "
            "or give it longer with --timeout"
        )
        with leaving_after(self.seconds, sentence):
            yield

    def over_factory(self, dtype: str) -> AbstractContextManager[None]:
        """`over` the making of a port."""
        return self.over(f"its factory ({dtype})")


UNWATCHED = Watch()


@contextmanager
def leaving_after(seconds: float, sentence: str) -> Iterator[None]:
    """Inside, when the time is over, the process ends with the sentence and exit status 2."""
    timer = Timer(seconds, _leave, (sentence,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave(sentence: str) -> None:
    if _LOG.isEnabledFor(logging.DEBUG):
        faulthandler.dump_traceback(file=2)
    sys.stdout.flush()
    print(f"goldens: {sentence}", file=sys.stderr, flush=True)
    os._exit(2)
