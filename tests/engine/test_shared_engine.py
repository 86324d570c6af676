"""Checks how threads take turns at an engine."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from decodery.decoding.event import Event
from decodery.engine import shared_engine
from decodery.engine.shared_engine import Mailbox, SharedEngine


class Steps:
    """Stands for an engine: each step takes some milliseconds and gives the first request an event."""

    def __init__(self) -> None:
        self.steps = 0
        self.requests = 0
        self.steps_at_last_add = 0
        self.failing = False

    def add(self, *arguments: Any, **options: Any) -> int:
        self.requests += 1
        self.steps_at_last_add = self.steps
        return self.requests

    def seed_of(self, request: int) -> int:
        return request

    def abort(self, request: int) -> None:
        pass

    def step_into(self, events: list[Event]) -> None:
        time.sleep(0.005)
        if self.failing:
            raise ArithmeticError("a step failed")
        self.steps += 1
        events.append(Event(1, 0, (self.steps,)))


def test_a_thread_that_adds_a_request_comes_before_the_next_step() -> None:
    engine: Any = Steps()
    shared, mailbox, stopped = SharedEngine(engine), Mailbox(), threading.Event()
    shared.add(mailbox)

    def step() -> None:
        while not stopped.is_set():
            shared.events(mailbox)

    stepping = threading.Thread(target=step)
    stepping.start()
    try:
        for _ in range(10):
            time.sleep(0.01)
            before = engine.steps
            shared.add(Mailbox())
            # The step that was running, and the one that may have begun before the request was announced.
            assert engine.steps_at_last_add - before <= 2
    finally:
        stopped.set()
        stepping.join()


def test_a_step_that_fails_wakes_the_threads_that_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_engine, "LOOK_AGAIN", 60)
    engine: Any = Steps()
    engine.failing = True
    shared, failures = SharedEngine(engine), []

    def step() -> None:
        mailbox = Mailbox()
        shared.add(mailbox)
        try:
            shared.events(mailbox)
        except ArithmeticError as error:
            failures.append(error)

    threads = [threading.Thread(target=step, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(failures) == 4
