"""A stream: one sequence, or a fixed batch of them, being run. It owns the states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnx.arguments import mapping, number, shown
from rnnx.errors import InputError, StreamError
from rnnx.formats.snapshot import Sampling, Snapshot, decode_snapshot, encode_snapshot
from rnnx.model.contract import axis_index
from rnnx.model.shapes import Array
from rnnx.runtime import initial_states, step_loop
from rnnx.runtime.bound_call import Plan
from rnnx.runtime.busy_lock import Guarded, exclusive
from rnnx.runtime.input_checks import check_values, match_inputs
from rnnx.runtime.state_view import StateView
from rnnx.runtime.waiting import Waiting, joined_outputs, no_outputs, require_end

if TYPE_CHECKING:
    from rnnx.engines.protocol import Loaded, StateBuffers


class Stream(Guarded):
    """One batched sequence of a session. Made by `Session.stream`; used by one thread at a time.

    A step reads one set of state buffers and writes the other; the roles swap in one assignment at its
    very end. An exception or interrupt leaves the states as they were before the call, or as they are
    after it.

    Attributes:
        session: what it runs.
        batch: number of sequences side by side.
        dims: sizes of the free dimensions that were bound when it was opened.
    """

    _kind = "stream"
    _turns = "open a stream for each thread; they share the session"

    def __init__(
        self,
        session: Loaded,
        *,
        batch: int = 1,
        dims: Mapping[str, int] | None = None,
        initial: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.session = session
        self.dims = mapping("dims", dims, "sizes by dimension")
        self._contract = session.contract
        self._check = check
        self._sizes = initial_states.sizes(self._contract, batch, self.dims)
        self.batch = self._sizes["batch"]
        self._specs = {state.name: state for state in self._contract.states}
        begins = mapping("initial", initial, "starts by state")
        with initial_states.room(self._sizes):
            self._initial = initial_states.starts(self._contract, self._sizes, begins)
            self._buffers = self._open()
        self._chunk_buffers: StateBuffers | None = None  # of chunks of a step model
        self._step_plan: Plan | None = None
        self._chunk_plan: Plan | None = None
        # Which set of buffers is current, and how many steps led to it: one value, so that they change
        # together whatever interrupts.
        self._now = (0, 0)
        self._waiting = self._none_waiting = Waiting(self._contract)
        self._replace(self._initial, 0)

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        return f"<rnnx.Stream of {self.session!r}, batch {self.batch}, at step {self.position}>"

    @property
    def position(self) -> int:
        """Number of steps since the stream was opened or reset as a whole."""
        return self._now[1]

    @property
    def state(self) -> StateView:
        """The states by name: reading gives a copy, assigning checks and overwrites."""
        return StateView(self, self._contract, self._sizes, self._get_state, self._set_states)

    def step(self, inputs: Any = None, *, out: dict[str, Array] | None = None) -> dict[str, Array]:
        """Run one time step.

        Args:
            inputs: arrays by input name in the shape of one step, which has no time axis (an `N*time` axis
                has N entries); a model that needs one input also takes it bare.
            out: arrays by output name to write results into, instead of allocating them.

        Returns:
            The outputs by name, in the shape of one step. They are yours to keep.

        Raises:
            InputError: for inputs that do not fit; nothing was computed.
            StreamError: `whole-only`, `stream-busy` or `stream-closed`.
            ModelError: `engine-failed`; the states are unchanged.
        """
        try:
            del self._gate["open"]
        except KeyError:
            raise self._unusable() from None
        try:
            if self._waiting is not self._none_waiting:
                self._waiting.require_none()
            plan = self._step_plan
            if plan is None or not plan.fill(inputs):
                plan = self._step_plan = self._fit(inputs, whole=False)
            if out is not None:
                plan.check_out(out)
            index, position = self._now
            plan.run(index)
            self._now = (1 - index, position + 1)
            return plan.results() if out is None else plan.results_into(out)
        finally:
            self._gate["open"] = True

    def run(self, inputs: Any = None) -> dict[str, Array]:
        """Run a chunk of steps. Chunks of any lengths give together what one long one gives.

        Args:
            inputs: arrays by input name in the shape of a chunk, with the time axis; inputs without one
                hold for the whole call. A model that needs one input also takes it bare.

        Returns:
            The outputs by name, with the time axis; those without one have the value at the last step.

        Raises:
            InputError, StreamError, ModelError: as `step` does.
        """
        try:
            del self._gate["open"]
        except KeyError:
            raise self._unusable() from None
        try:
            if self._waiting is not self._none_waiting:
                self._waiting.require_none()
            return self._run(inputs)
        finally:
            self._gate["open"] = True

    @property
    def waiting(self) -> dict[str, int]:
        """How many entries of each input wait for a whole step, without those of which none does."""
        return self._waiting.counts()

    @exclusive
    def feed(self, inputs: Any) -> dict[str, Array]:
        """Run the steps that are whole, and keep what is over for the next call.

        A step takes N entries along an `N*time` axis; a block may have any number of them, none too. Where
        several inputs have time, each has a queue of its own, and as many steps run as the shortest has.

        Args:
            inputs: arrays by input name in the shape of a chunk, with any number of entries along time. Of
                an input that was given before and is left out no entries come; one without time stays as
                it was. A model that needs one input also takes it bare.

        Returns:
            The outputs of the steps that ran, as `run` gives them. If none did, those with time have length
            0, and the others are left out.

        Raises:
            InputError: as `run`, and `feed-length` for lengths; nothing was kept or computed.
            StreamError: `whole-only`, `stream-busy` or `stream-closed`.
            ModelError: `engine-failed`; what waited waits, without `inputs`.
        """
        if self._contract.whole_only is not None:
            raise self._whole_only("a call of feed")
        waiting = self._waiting.joined(inputs, self._sizes)
        waiting.check(self._sizes, finite=self._check)
        steps = waiting.whole_steps()
        outputs = self._run_first(waiting, steps)
        self._waiting = waiting.without(steps)
        return outputs

    @exclusive
    def flush(self) -> dict[str, Array]:
        """Run what waits as whole steps, the last one filled up with zeros; then it is as if never fed.

        Zeros stand for what is nearest to 0 in the range of an input. `waiting` says before how many entries
        of the last step are real. Where outputs come k steps late, those of the last k steps follow, as the
        network ends a sequence; then the stream is over, until it is reset.

        Returns:
            The outputs of these steps, the filled one included, as `feed` gives them.

        Raises:
            ModelError: `engine-failed`; what waited waits.
            StreamError: `no-end`: they come late, and nobody can say what the last ones are; `stream-busy`
                or `stream-closed`.
        """
        late = max((spec.delay for spec in self._contract.outputs), default=0)
        ended = require_end(self._contract) if late else None
        outputs = self._run_first(self._waiting, self._waiting.steps_to_flush())
        self._waiting = self._waiting.without_entries()
        if ended is None:
            self._waiting = self._none_waiting
            return outputs
        self._replace({**self._read_all(), ended: np.ones_like(self._read(ended))}, self.position)
        last = self._run(self._waiting.filling(late, self._sizes))
        self._waiting = self._none_waiting
        return joined_outputs(self._contract, outputs, last)

    def _run_first(self, waiting: Waiting, steps: int) -> dict[str, Array]:
        return self._run(waiting.first(steps)) if steps else no_outputs(self._contract, self._sizes)

    def _run(self, inputs: Any) -> dict[str, Array]:
        if not self._contract.has_time:
            return self._loop(inputs)
        plan = self._chunk_plan
        if self._contract.whole_only is not None and self._now[1]:
            raise self._whole_only("a second call")
        if plan is None or not plan.fill(inputs):
            plan = self._chunk_plan = self._fit(inputs, whole=True)
        index, position = self._now
        plan.run(index)
        self._now = (1 - index, position + plan.time)
        return plan.results()

    @exclusive
    def reset(self, rows: Iterable[int] | None = None) -> None:
        """Put the states back to their start: of all rows, and the position with them, or of some rows.

        Args:
            rows: rows of the batch, 0..batch-1; the position stays. None resets everything, and drops what
                waits for a whole step.

        Raises:
            StreamError: `entries-waiting` for some rows while entries wait, which are of all rows.
            InputError: `row-range` for a row that does not exist, `shared-state` where rows share a state.
        """
        if rows is None:
            self._replace(self._initial, 0)
            self._waiting = self._none_waiting
            return
        self._waiting.require_none()
        chosen = self._rows(rows)
        states = self._read_all()
        for name, value in states.items():
            batch = axis_index(self._specs[name].shape, "batch")
            if batch is not None:
                place = (slice(None),) * batch + (chosen,)
                value[place] = self._initial[name][place]
            elif len(chosen) == self.batch:
                value[...] = self._initial[name]
            elif chosen:
                raise InputError(
                    "shared-state",
                    expected="states with a batch axis, so that a row has its own",
                    found=f"state {name!r} shared by all rows",
                    fix="reset the whole stream",
                )
        self._replace(states, self._now[1])

    @exclusive
    def snapshot(self, *, sampling: Sampling | None = None) -> bytes:
        """Return all that is needed to continue elsewhere: model id, states, position.

        Args:
            sampling: where sampling from this stream's outputs stopped, to be kept with it.

        Returns:
            safetensors bytes, laid out as `rnnx.formats.snapshot` says; the same in every language.

        Raises:
            StreamError: `entries-waiting`: a snapshot lies between two steps, and has no room for them.
        """
        self._waiting.require_none()
        states = self._read_all()
        return encode_snapshot(Snapshot(self.session.id, self.position, states, sampling))

    @exclusive
    def restore(self, data: bytes) -> Sampling | None:
        """Continue where a snapshot was made; the outputs that follow are the same bit for bit.

        What waits for a whole step is dropped.

        Returns:
            Where sampling stopped, if the snapshot has it.

        Raises:
            FileError: `not-safetensors`, `not-a-snapshot`, `snapshot-newer`, `snapshot-of-another-model` or
                `snapshot-invalid`; the states are unchanged.
            TypeError: `data` is no bytes.
        """
        found = decode_snapshot(data, self._contract, model_id=self.session.id, sizes=self._sizes)
        self._replace(found.states, found.position)
        self._waiting = self._none_waiting
        return found.sampling

    def close(self) -> None:
        """Let go of the buffers. The stream cannot be used any more; closing twice is fine.

        Raises:
            StreamError: `stream-busy`.
        """
        if not self._closed:
            self._let_go()

    def __enter__(self) -> Stream:
        """Return the stream itself; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the stream."""
        self.close()

    @exclusive
    def _let_go(self) -> None:
        self._closed = True
        self._step_plan = self._chunk_plan = None
        del self._buffers, self._chunk_buffers, self._initial

    @exclusive
    def _get_state(self, name: str) -> Array:
        return self._read(name)

    @exclusive
    def _set_states(self, states: Mapping[str, Array]) -> None:
        self._replace({**self._read_all(), **states}, self.position)

    def _fit(self, inputs: Any, *, whole: bool) -> Plan:
        """Return a plan filled with these inputs: the long way, taken when the latest plan does not fit."""
        if not whole and self._contract.whole_only is not None:
            raise self._whole_only("a call of step")
        device = self.session.engine.device
        arrays, dims = match_inputs(self._contract, inputs, self._sizes, whole=whole, device=device)
        plan = self._plan(dims, whole=whole)
        if not plan.fill(arrays):
            check_values(self._contract, arrays, dims, finite=self._check)
            raise AssertionError("a plan refused inputs that are valid")
        return plan

    def _plan(self, dims: Mapping[str, int], *, whole: bool) -> Plan:
        latest = self._chunk_plan if whole else self._step_plan
        if latest is not None and latest.key == Plan.key_of(dims, whole=whole):
            return latest
        return Plan(self._contract, self._buffers, dims, whole=whole, check=self._check)

    def _loop(self, inputs: Any) -> dict[str, Array]:
        """Run a chunk of a step model: step by step in buffers of its own, whose states hold at its end."""
        contract = self._contract
        arrays, dims = match_inputs(contract, inputs, self._sizes, whole=True)
        check_values(contract, arrays, dims, finite=self._check)
        if self._chunk_buffers is None:
            self._chunk_buffers = self._open()
        buffers, steps, plan = self._chunk_buffers, dims["time"], self._chunk_plan
        dims["time"] = 1
        if plan is None or plan.key != Plan.key_of(dims, whole=False):
            plan = self._chunk_plan = Plan(contract, buffers, dims, whole=False, check=self._check)
        moving = step_loop.moving_inputs(contract, plan, arrays, steps)
        for name in self._specs:
            buffers.write(0, name, self._read(name))
        results = step_loop.run_steps(contract, plan, moving, steps)
        self._replace({name: buffers.read(steps % 2, name) for name in self._specs}, self._now[1] + steps)
        return results

    def _open(self) -> StateBuffers:
        return self.session.engine.open({name: value.shape for name, value in self._initial.items()})

    def _read(self, name: str) -> Array:
        return self._buffers.read(self._now[0], name)

    def _read_all(self) -> dict[str, Array]:
        return {name: self._read(name) for name in self._specs}

    def _replace(self, states: Mapping[str, Array], position: int) -> None:
        """Make `states` current, all at once: they are written to the other buffers, which then swap."""
        index = 1 - self._now[0]
        for name, value in states.items():
            self._buffers.write(index, name, value)
        self._now = (index, position)

    def _rows(self, rows: Iterable[int]) -> list[int]:
        wanted, fix = f"rows in 0..{self.batch - 1}", "name rows of this stream's batch"
        if not isinstance(rows, Iterable):
            raise InputError("row-range", expected=wanted, found=shown(rows), fix=fix)
        last = self.batch - 1
        chosen = {number(row, wanted, most=last, code="row-range", fix=fix, error=InputError) for row in rows}
        return sorted(chosen)

    def _whole_only(self, found: str) -> StreamError:
        return StreamError(
            "whole-only",
            expected=f"the whole sequence in one call of run, because of {self._contract.whole_only}",
            found=found,
            fix="give the whole sequence to run, and reset before the next one",
        )
