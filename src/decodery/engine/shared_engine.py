"""Lets several threads use one engine, and a process fork while they do."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Any

from decodery.decoding.event import Event
from decodery.engine.engine import Engine
from decodery.errors import RequestError

# Seconds after which a waiting thread looks again by itself: an interrupt may have come between the end of
# another thread's step and its notice.
LOOK_AGAIN = 0.1


class Mailbox:
    """Holds the events of the requests of one call until the thread that made the call takes them."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self._last: Event | None = None

    def take(self) -> list[Event]:
        """Returns the events that have come, and removes them."""
        taken = []
        while self.events:
            event = self.events.popleft()
            # A delivery that was interrupted begins with the same event again.
            if event is not self._last:
                taken.append(event)
            self._last = event
        return taken


class SharedEngine:
    """Lets several threads use one engine: they step it in turn, for the requests of all.

    A thread that waits for events runs a step, or waits for another thread's step. Either way it gets the
    events of its own requests alone. An interrupt of one thread loses no event of another.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Held only by `with` statements, between whose parts no interrupt comes.
        self._lock = threading.Lock()
        # The thread that holds the lock, 0 if none does.
        self._owner = 0
        self._mailboxes: dict[int, Mailbox] = {}
        # The threads that wait to add a request; a step lets them go first.
        self._adding: deque[int] = deque()
        self._undelivered: list[Event] = []
        self._dropped: deque[int] = deque()
        self._waiting: dict[int, SimpleQueue[None]] = {}
        _forks.engines[id(self)] = self

    def add(self, mailbox: Mailbox, *arguments: Any, **options: Any) -> tuple[int, int]:
        """Queues a request as `Engine.add` does, with a mailbox for its events; returns its id and seed."""
        if self._owner == get_ident():
            return self._add(mailbox, arguments, options)
        try:
            self._adding.append(get_ident())
            with self._lock:
                self._owner = get_ident()
                try:
                    return self._add(mailbox, arguments, options)
                finally:
                    self._owner = 0
        finally:
            with suppress(ValueError):
                self._adding.remove(get_ident())
            self._after_release()

    def _add(self, mailbox: Mailbox, arguments: Any, options: Any) -> tuple[int, int]:
        request = self._engine.add(*arguments, **options)
        self._mailboxes[request] = mailbox
        return request, self._engine.seed_of(request)

    def drop(self, request: int) -> None:
        """Aborts a request: at once, or if a step is running at its end.

        The garbage collector may call this at any point of any thread, when it closes an abandoned stream. So
        it does not wait for the step.
        """
        self._mailboxes.pop(request, None)
        self._dropped.append(request)
        self._abort_dropped()

    def _abort_dropped(self) -> None:
        """Aborts the requests that were dropped while the lock was held; to be called after each release."""
        while self._dropped and not self._lock.locked():
            with self._lock:
                self._owner = get_ident()
                try:
                    while self._dropped:
                        self._engine.abort(self._dropped[0])
                        self._dropped.popleft()
                finally:
                    self._owner = 0

    def events(self, mailbox: Mailbox) -> list[Event]:
        """Returns the next events of the mailbox's requests, of which at least one must be unfinished.

        Raises `RequestError` when a function that a step calls calls this in the step's thread. Such a
        function must not wait for another thread that uses the engine: that thread waits for the step.
        """
        if self._owner == get_ident():
            raise RequestError(
                "the model is in the middle of a step: generate outside of functions that it calls"
            )
        while not mailbox.events:
            if self._owner or self._adding:
                self._wait()
                continue
            try:
                self._step(mailbox)
            finally:
                self._after_release()
        return mailbox.take()

    def _after_release(self) -> None:
        """Does what could not be done while the lock was held, and wakes the threads that wait for it."""
        self._abort_dropped()
        for bell in list(self._waiting.values()):
            bell.put(None)

    def _step(self, mailbox: Mailbox) -> None:
        """Delivers the events that are left over; runs a step unless they hold one of the mailbox."""
        with self._lock:
            self._owner = get_ident()
            try:
                self._deliver()
                if not mailbox.events:
                    self._engine.step_into(self._undelivered)
                    self._deliver()
            finally:
                self._owner = 0

    def _wait(self) -> None:
        """Waits until another thread's step ends, or until another thread has added its request."""
        bell: SimpleQueue[None] = SimpleQueue()
        self._waiting[get_ident()] = bell
        try:
            if self._owner or self._adding:
                bell.get(timeout=LOOK_AGAIN)
        except Empty:
            if not self._owner:
                self._adding.clear()  # Left by a thread that was interrupted.
        finally:
            del self._waiting[get_ident()]

    def _deliver(self) -> None:
        """Moves events to the mailboxes of their requests; those of dropped requests have none."""
        while self._undelivered:
            event = self._undelivered[0]
            mailbox = self._mailboxes.get(event.request)
            if mailbox is not None:
                mailbox.events.append(event)
            del self._undelivered[0]


class _Forks:
    """Lets a fork wait until no thread is in an engine. The child has only the thread that forks, and could
    neither finish another thread's step nor release its lock.
    """

    def __init__(self) -> None:
        self.engines: weakref.WeakValueDictionary[int, SharedEngine] = weakref.WeakValueDictionary()
        # By the thread that forks.
        self._held: dict[int, list[SharedEngine]] = {}

    def before(self) -> None:
        """Locks all engines, except those in which the calling thread is itself."""
        while not self._hold_all():
            self._release()
            time.sleep(0.001)

    def _hold_all(self) -> bool:
        held = self._held[get_ident()] = []
        for reference in self.engines.valuerefs():
            engine = reference()
            if engine is None or engine._owner == get_ident():
                continue
            # Another thread may hold this one and wait for one that is held here. Then all are released.
            if not engine._lock.acquire(timeout=1):
                return False
            held.append(engine)
        return True

    def _release(self) -> None:
        for engine in self._held.pop(get_ident(), ()):
            engine._lock.release()

    def after_in_parent(self) -> None:
        """Releases the engines, and aborts what was dropped meanwhile."""
        held = list(self._held.get(get_ident(), ()))
        self._release()
        for engine in held:
            engine._abort_dropped()

    def after_in_child(self) -> None:
        """Releases the engines and forgets the other threads, which the child does not have."""
        for reference in self.engines.valuerefs():
            engine = reference()
            if engine is not None:
                engine._waiting.clear()
                engine._adding.clear()
        self._release()
        self._held.clear()


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after_in_parent, after_in_child=_forks.after_in_child
    )
