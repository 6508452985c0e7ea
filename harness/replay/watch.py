"""A port that does not come back. What XLA runs hears no signal, so no exception ends it: the command leaves."""

import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        timer = Timer(self.seconds, _leave, (asked, self.seconds))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


UNWATCHED = Watch()


def _leave(asked: str, seconds: float) -> None:
    if _LOG.isEnabledFor(logging.DEBUG):
        faulthandler.dump_traceback(file=2)
    sys.stdout.flush()
    print(
        f"goldens: the port did not come back from {asked} within {seconds:g} s: mend what does not end there, "
        "or give it longer with --timeout",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)
