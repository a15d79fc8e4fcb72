"""Those who ask: one question each, in every way that there is to ask it."""

from dataclasses import replace

from sidecar.core.wishes import wishes
from sidecar.errors import NoAnswer
from sidecar.model import State
from tests.simulation.history import History
from tests.simulation.invariants import SLACK, Judge, Question
from tests.simulation.process import Process
from tests.simulation.scenario import Ask
from tests.simulation.timing import Time


class Caller:
    """Asks a process and has the answer judged."""

    def __init__(self, process: Process, judge: Judge, time: Time, history: History) -> None:
        self._process = process
        self._judge = judge
        self._time = time
        self._history = history

    async def ask(self, ask: Ask) -> None:
        """Ask one question."""
        checker = self._process.heart.checker
        held = self._process.heart.cache.get(ask.customer)
        said = wishes(ask.cache_control, ask.default)
        question = Question(ask, said, self._time(), State.ABSENT, self._process.record, self._judge.jumps)
        at = self._time() + SLACK  # the clock ticks on until it is asked
        state = checker._trust.state(held, at, question.lookup_key)
        question = replace(question, state=state)
        self._history.say("ask", *ask, f"({state})")
        self._history.counts[f"ask {ask.kind}"] += 1
        self._history.counts[f"asked when {state}"] += 1
        try:
            await self._put(question)
        except NoAnswer as missing:
            self._history.say("told", repr(missing), missing.code)
            self._judge.refused(question, missing)
        self._judge.kept(self._process.heart.cache.bytes)

    async def _put(self, question: Question) -> None:
        ask, checker, judge = question.ask, self._process.heart.checker, self._judge
        match ask.kind:
            case "check":
                judge.decided(
                    question, await checker.check(ask.customer, ask.lookup_key, question.wishes, wait=ask.wait)
                )
            case "find":
                judge.found(question, await checker.find(ask.customer, question.wishes))
            case "refresh":
                judge.found(question, await checker.refresh(ask.customer))
            case "renew_soon":
                self._process.heart.refresher.renew_soon(ask.customer)
            case _:
                judge.glanced(question, checker.answer(ask.customer, ask.lookup_key, question.wishes))
