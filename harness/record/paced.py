"""A call that stops on the way and goes on when it is told to: so passes of several cases go layer by layer together.

What a model runs is its own code, in which nothing can wait for another case. So each pass has a thread, and only one
thread runs at a time: the one that goes on, while the one that told it to waits.
"""

from collections.abc import Callable
from threading import Semaphore, Thread


class _Abandoned(BaseException):
    """Nobody waits for the call any more."""


class Paced:
    """call: what is run; it calls `stop` where it is to wait."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call, self._thread = call, Thread(target=self._run, daemon=True)
        self._on, self._back = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None
        self._abandoned = False

    def go_on(self) -> None:
        """Until it stops the next time, or is over. Raises what the call raises."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._on.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Called by the call itself: wait until it is to go on."""
        self._back.release()
        self._on.acquire()
        if self._abandoned:
            raise _Abandoned

    def close(self) -> None:
        """End the call where it is."""
        self._abandoned = True
        if self._thread.is_alive():
            self._on.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._call()
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._back.release()
