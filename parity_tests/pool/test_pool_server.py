"""The asyncio server of docs/pool.md: frames go together, and no connection stops another."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import numpy as np
import pytest

import rnnx
from conftest import REPOSITORY
from rnnx.errors import InputError, ModelError
from support.pool_models import SESSIONS, agree

SESSION = SESSIONS["lstm"]
FRAME, WRONG = np.ones((1, 3), np.float32), np.ones((1, 4), np.float32)


class Held:
    """A server whose steps wait until they are let go."""

    def __init__(self) -> None:
        text = (REPOSITORY / "docs" / "pool.md").read_text(encoding="utf-8")
        (block,) = re.findall(
            r"^```python\n((?:(?!```).)*?^class Server.*?)^```$", text, re.DOTALL | re.MULTILINE
        )
        space: dict[str, Any] = {"rnnx": rnnx}
        exec(compile(block, "pool.md", "exec"), space)
        self.server = space["Server"](SESSION)
        self.pool = self.server.pool
        self.steps: list[int] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None
        self.under_way = False
        self._step, self.pool.step = self.pool.step, self.step
        for name in ("open", "close"):
            setattr(self.pool, name, self.between_steps(getattr(self.pool, name)))

    def between_steps(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            assert not self.under_way
            return function(*arguments)

        return checked

    def step(self, inputs: dict[int, Any]) -> Any:
        self.under_way = True
        self.begun.release()
        assert self.go.acquire(timeout=10)
        self.under_way = False
        self.steps.append(len(inputs))
        if self.error is not None:
            raise self.error
        return self._step(inputs)

    async def begins(self) -> None:
        """Wait until a step is under way."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)

    def let_go(self, steps: int = 1000) -> None:
        self.go.release(steps)

    def connect(self, *frames: Any) -> asyncio.Task[list[Any]]:
        async def arriving() -> AsyncIterator[Any]:
            for frame in frames:
                yield frame

        async def outputs() -> list[Any]:
            return [output async for output in self.server.connect(arriving())]

        return asyncio.create_task(outputs())


def run(held: Held, work: Coroutine[Any, Any, None]) -> None:
    """Run connections beside the task that steps, which must not end, and leaves no stream open."""

    async def both() -> None:
        stepping = asyncio.create_task(held.server.step_on())
        try:
            await asyncio.wait_for(work, 10)
            assert not stepping.done(), stepping
            assert held.pool.streams == ()
        finally:
            held.let_go()
            stepping.cancel()

    asyncio.run(both())


def alone(frames: Iterable[Any]) -> list[Any]:
    stream = SESSION.stream()
    return [stream.step(frame) for frame in frames]


def test_frames_that_arrive_during_a_step_go_together() -> None:
    held = Held()

    async def work() -> None:
        first = held.connect(FRAME)
        await held.begins()
        rest = [held.connect(FRAME * scale) for scale in (2, 3, 4)]
        await asyncio.sleep(0)
        held.let_go()
        agree((await first)[0], alone([FRAME])[0])
        for scale, task in zip((2, 3, 4), rest, strict=True):
            agree((await task)[0], alone([FRAME * scale])[0])

    run(held, work())
    assert held.steps == [1, 3]


@pytest.mark.parametrize("frame", [FRAME, WRONG], ids=["right", "wrong"])
def test_a_connection_that_leaves_during_a_step_stops_nobody(frame: Any) -> None:
    held = Held()

    async def work() -> None:
        leaving = held.connect(frame)
        await held.begins()
        staying, waiting = held.connect(FRAME, FRAME), held.connect(frame)
        await asyncio.sleep(0)
        leaving.cancel()
        waiting.cancel()
        held.let_go()
        for output, expected in zip(await staying, alone([FRAME, FRAME]), strict=True):
            agree(output, expected)
        for task in (leaving, waiting):
            with pytest.raises(asyncio.CancelledError):
                await task

    run(held, work())


def test_a_wrong_frame_fails_its_own_connection_only() -> None:
    held = Held()

    async def work() -> None:
        first = held.connect(FRAME, FRAME)
        await held.begins()
        right, wrong = held.connect(FRAME, FRAME), held.connect(FRAME, WRONG, FRAME)
        await asyncio.sleep(0)
        held.let_go()
        for task in (first, right):
            for output, expected in zip(await task, alone([FRAME, FRAME]), strict=True):
                agree(output, expected)
        with pytest.raises(InputError, match="found"):
            await wrong

    run(held, work())


@pytest.mark.parametrize(
    "error", [ModelError("engine-failed", expected="a", found="b", fix="c"), MemoryError("no room")]
)
def test_an_error_of_the_engine_reaches_each_connection_and_is_not_tried_again(error: Exception) -> None:
    held = Held()
    held.error = error

    async def work() -> None:
        first = held.connect(FRAME)
        await held.begins()
        rest = [held.connect(FRAME), held.connect(FRAME)]
        await asyncio.sleep(0)
        held.let_go()
        for task in (first, *rest):
            with pytest.raises(type(error)):
                await task
        held.error = None
        agree((await held.connect(FRAME))[0], alone([FRAME])[0])

    run(held, work())
    assert held.steps == [1, 2, 1]
