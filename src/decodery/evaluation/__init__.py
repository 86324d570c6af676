"""Measures models: tasks, runs that can be stopped and go on, and their results."""

from __future__ import annotations

from decodery import metrics as metrics
from decodery.evaluation.contract import Document, Task, TaskData
from decodery.evaluation.runs.run import Run, RunSettings, run
from decodery.evaluation.subject import Subject
from decodery.evaluation.tasks.registry import find_task

__all__ = ["Document", "Run", "RunSettings", "Subject", "Task", "TaskData", "find_task", "metrics", "run"]
