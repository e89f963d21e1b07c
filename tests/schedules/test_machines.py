"""
State machines over the mirror: Hypothesis chooses the steps, and cuts them down by itself.

The same world as in `make exhaustive`: Firestore, the bus, two writers, crashes and purges.  On a
database every outcome and, after every step, every row is compared with the model.

`pytest --hypothesis-profile=deep -o timeout=0 tests/schedules/test_machines.py` runs many more.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.exhaustive.documents import CONTENTS_COUNT, DOCUMENTS
from tests.exhaustive.running import database_world, model_world
from tests.exhaustive.schedule import Kind, Step
from tests.exhaustive.world import SURVIVES, World
from tests.schedules.conftest import Sessions
from tests.support.gates import POINTS

#: 1, or what the profile asks for.
SCALE = max(1, settings.default.max_examples // 100) if settings.default else 1
_SETTINGS = settings(
    deadline=None,
    database=None,
    derandomize=SCALE == 1,
    suppress_health_check=list(HealthCheck),
)

DOCUMENT = st.integers(0, len(DOCUMENTS) - 1)
#: One of what is there; which one, when there are fewer, is for the world to say.
ONE = st.integers(0, 9)
COUNT = st.integers(0, 19)


class MirrorMachine(RuleBasedStateMachine):
    """Does one step after the other, and looks at the end with everything settled."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        self._has_failed = False

    @classmethod
    def make_world(cls) -> World:
        """Give a world in memory."""
        return World()

    def do(self, kind: Kind, a: int = 0, b: int = 0, c: int = 0) -> None:
        """Do one step."""
        # Until it is over: a world that has failed half way is not to be finished.
        self._has_failed = True
        self.world.do(Step(kind, a, b, c))
        self._has_failed = False

    @initialize(minutes=st.integers(0, 5))
    def set_skew(self, minutes: int) -> None:
        self.do(Kind.SKEW, minutes)

    @rule(document=DOCUMENT, contents=st.integers(0, CONTENTS_COUNT - 1), dual=st.integers(0, 3))
    def write(self, document: int, contents: int, dual: int) -> None:
        self.do(Kind.WRITE, document, contents, dual)

    @rule(document=DOCUMENT)
    def delete(self, document: int) -> None:
        self.do(Kind.DELETE, document)

    @rule(event=ONE, twice=st.booleans(), commits_late=st.booleans())
    def publish(self, event: int, *, twice: bool, commits_late: bool) -> None:
        self.do(Kind.PUBLISH, event, twice, commits_late)

    @rule(event=ONE, is_recognised=st.booleans())
    def repeat(self, event: int, *, is_recognised: bool) -> None:
        self.do(Kind.REPEAT, event, not is_recognised)

    @rule(publication=ONE)
    def commit_publication(self, publication: int) -> None:
        self.do(Kind.COMMIT, publication)

    @rule()
    def move_mark(self) -> None:
        self.do(Kind.MARK)

    @rule(count=COUNT, dies_at=st.integers(0, SURVIVES))
    def work(self, count: int, dies_at: int) -> None:
        self.do(Kind.WORK, count, dies_at)

    @rule(
        first=st.integers(0, 5),
        second=st.integers(0, 5),
        point=st.integers(0, len(POINTS) - 1),
        is_killed=st.booleans(),
    )
    def race(self, first: int, second: int, point: int, *, is_killed: bool) -> None:
        self.do(Kind.RACE, first, second, 4 * point + (not is_killed))

    @rule(document=DOCUMENT, observer=st.integers(0, 3))
    def observe(self, document: int, observer: int) -> None:
        self.do(Kind.OBSERVE, document, observer)

    @rule(document=DOCUMENT)
    def repair(self, document: int) -> None:
        self.do(Kind.REPAIR, document)

    @rule(document=DOCUMENT, how=st.integers(0, 2))
    def damage(self, document: int, how: int) -> None:
        self.do(Kind.DAMAGE, document, how)

    @rule(entity=st.integers(0, 4), dies=st.booleans(), later=st.booleans())
    def purge(self, entity: int, *, dies: bool, later: bool) -> None:
        self.do(Kind.PURGE, entity, dies, later)

    @rule(minutes=st.integers(1, 20))
    def let_minutes_pass(self, minutes: int) -> None:
        self.do(Kind.TICK, minutes - 1)

    @rule()
    def resubmit(self) -> None:
        self.do(Kind.RESUBMIT)

    @rule(document=DOCUMENT, cures=st.booleans())
    def refuse(self, document: int, *, cures: bool) -> None:
        self.do(Kind.REFUSE, document, cures)

    @rule(calls=st.integers(1, 4))
    def fail_for_a_while(self, calls: int) -> None:
        self.do(Kind.OUTAGE, calls - 1)

    @invariant()
    def the_database_holds_what_the_model_holds(self) -> None:
        self._has_failed = True
        self.world.check()
        self._has_failed = False

    def teardown(self) -> None:
        if not self._has_failed:
            self.world.finish()


class FaultyMachine(MirrorMachine):
    """Has a mirror that forgets what was deleted."""

    @classmethod
    def make_world(cls) -> World:
        """Give a world with the fault."""
        return model_world("tombstone-dropped")


def test_a_machine_on_the_model_ends_as_firestore_did() -> None:
    """Long lives of few documents, chosen by Hypothesis."""
    run_state_machine_as_test(
        MirrorMachine,
        settings=settings(_SETTINGS, max_examples=40 * SCALE, stateful_step_count=40),
    )


def test_a_machine_finds_a_dropped_tombstone() -> None:
    """A machine that finds nothing says something only if it would have found this."""
    with pytest.raises(AssertionError, match="was deleted, and has a live row"):
        run_state_machine_as_test(
            FaultyMachine,
            settings=settings(
                # One in 200 finds it, and which ones come depends on the modules that are loaded.
                _SETTINGS,
                max_examples=5_000,
                stateful_step_count=20,
                phases=[Phase.generate],
            ),
        )


def test_a_machine_on_a_database_ends_as_firestore_did(sessions: Sessions) -> None:
    """Two writers, one of them held or killed inside its transaction, on the real procedures."""
    session = sessions.make()

    class DatabaseMachine(MirrorMachine):
        @classmethod
        def make_world(cls) -> World:
            return database_world(session)

    run_state_machine_as_test(
        DatabaseMachine,
        settings=settings(_SETTINGS, max_examples=8 * SCALE, stateful_step_count=25),
    )
