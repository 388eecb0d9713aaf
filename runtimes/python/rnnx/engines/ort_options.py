"""What `rnnx.load(..., options=)` lets one choose for ONNX Runtime. Why the defaults are what they are:
docs/decisions/0004-session-options.md.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, ClassVar

from rnnx.errors import UsageError, first_line

_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def _for_cuda(default: Any) -> Any:
    """Return a field that no other provider takes."""
    return dataclasses.field(default=default, metadata={"providers": ("cuda",)})


@dataclasses.dataclass(frozen=True)
class Options:
    """What `rnnx.load(..., options=)` lets one choose for ONNX Runtime.

    Attributes:
        threads: threads inside one operator. One is the fastest for a step of a small network, and
            many sessions in one process do not compete; raise it for large chunks or batches.
        spinning: whether idle threads wait in a busy loop: lower latency, a core burnt per thread.
        shared_threads: whether these threads are one pool for all sessions of the process; the first that
            says so makes it. All that are loaded later use it, too, whatever they say: ONNX Runtime gives
            none threads of its own then. It lets the threads of such a pool spin, so `spinning` must be true
            as well. With one thread there is no pool, and nothing to share.
        graph_optimization: how far the graph is rewritten when loaded.
        arena: whether freed memory is kept for the next call.
        memory_pattern: whether intermediate results of one shape are planned in one block.
        device: index of the GPU (cuda only).
        tf32: whether float32 products may be rounded to TF32: faster, and off by 1e-3 (cuda only).
        cuda_graph: whether a step is recorded once and then replayed with one launch (cuda only). Models
            with a Scan or with operators that only the CPU has cannot be, and are refused with the reason.
        pinned: whether the host arrays that inputs and outputs pass through are pinned memory, which the
            GPU reads and writes by itself (cuda only).
    """

    threads: int = 1
    spinning: bool = False
    shared_threads: bool = False
    graph_optimization: str = "all"
    arena: bool = True
    memory_pattern: bool = True
    device: int = _for_cuda(0)
    tf32: bool = _for_cuda(False)
    cuda_graph: bool = _for_cuda(False)
    pinned: bool = _for_cuda(True)

    ALLOWED: ClassVar[dict[str, Any]] = {
        "threads": range(1, 4097),
        "graph_optimization": tuple(_LEVELS),
        "device": range(4096),
    }


class _SharedThreads:
    """The one pool of threads that ONNX Runtime lets the sessions of a process share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count: int | None = None

    def settle(self, ort: Any, options: Options, settings: Any) -> None:
        """Let a session with these settings use the pool once there is one; before that, threads of its own.

        Raises:
            UsageError: `wrong-option`.
        """
        wanted = options.shared_threads and options.threads > 1
        if wanted and not options.spinning:
            raise _wrong_option("spinning to be true with shared_threads", "false", "set both, or neither")
        with self._lock:
            if wanted and self._count is None:
                try:
                    ort.set_global_thread_pool_sizes(options.threads, 1)
                except Exception as error:
                    found = first_line(error)
                    raise _wrong_option("no shared threads but rnnx's", found, "leave it out") from error
                self._count = options.threads
        if self._count is None:
            return
        if wanted and self._count != options.threads:
            raise _wrong_option(
                f"threads to be {self._count}, as in the session that made the shared pool",
                str(options.threads),
                "give all sessions that share threads the same number",
            )
        settings.use_per_session_threads = False
        # Else it prints that they are ignored.
        settings.intra_op_num_threads = settings.inter_op_num_threads = 0


_SHARED = _SharedThreads()


def session_options(ort: Any, options: Options) -> Any:
    """Return the SessionOptions for `options`."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    settings.enable_mem_pattern = options.memory_pattern
    settings.log_severity_level = 4  # what goes wrong is raised, with its text; nothing is printed beside it
    _SHARED.settle(ort, options, settings)
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    level = _LEVELS[options.graph_optimization]
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return settings


def _wrong_option(expected: str, found: str, fix: str) -> UsageError:
    return UsageError("wrong-option", expected=f"session option {expected}", found=found, fix=fix)


def is_of_engine(error: Exception) -> bool:
    """Whether an error was raised by ONNX Runtime, and not by a signal's handler that ran meanwhile.

    Handlers run wherever Python happens to be; what they raise is theirs and has to come out as it is.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # What is raised in C has no frame of its own: the innermost one is whose code called it.
    home = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return home.partition(".")[0] in ("onnxruntime", "rnnx")
