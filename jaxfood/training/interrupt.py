"""Ctrl-C without loss: the first asks the loop to save and stop, the second stops at once."""

import signal
import threading
from types import FrameType, TracebackType

from jaxfood import processes


class StopRequest:
    """While active, SIGINT and SIGTERM ask for a stop instead of raising; a second signal raises KeyboardInterrupt.

    With several processes a signal to any of them stops all. Outside the main thread, where Python takes no signals,
    nothing changes.
    """

    def __init__(self) -> None:
        self._made = False
        self._handlers: dict[int, object] = {}
        self._monitor = processes.monitor()

    def __enter__(self) -> "StopRequest":
        if self._monitor:
            processes.barrier()  # each stop is of one work, so none begins the next before all have left the last
            self._monitor.begin_work()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._monitor:
            self._monitor.end_work(error)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def reached(self, step: int) -> bool:
        """Whether to stop now, `step` steps being done. Several processes must all ask, after the same steps."""
        return self._monitor.reached(step) if self._monitor else self._made

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._made:
            raise KeyboardInterrupt
        self._made = True
        if self._monitor:
            self._monitor.ask_to_stop()
