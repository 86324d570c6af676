"""Runs lm-eval, EleutherAI's harness of language models, over an open model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.harness.harness_requests import Asked, HarnessRequests, Ready
from decodery.evaluation.subject import Subject
from decodery.llm import LLM


@dataclass(frozen=True, slots=True)
class HarnessSettings:
    """Holds what `lm_eval.simple_evaluate` is asked for.

    `tasks` are names, and `include_path` is a folder with tasks of one's own. With `num_fewshot` None, each
    task shows its own number. `limit` is the number of documents of each task. `seed` is that of the shots
    and of sampled texts.
    """

    tasks: tuple[str, ...]
    include_path: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    bootstrap_iters: int = 100_000
    seed: int = 1234

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ParameterError("tasks names no task")


def evaluate(settings: HarnessSettings, model: LLM, *, name: str = "default", bos: bool | None = None) -> Any:
    """Returns the results of `lm_eval.simple_evaluate`, a mapping.

    `bos` is that of `Renderer`. Raises `ParameterError` for an unknown task, and for an encoder, and
    `DecoderyError` without lm-eval.
    """
    lm_eval, tasks = library("lm_eval"), library("lm_eval.tasks")
    manager = tasks.TaskManager(include_path=settings.include_path)
    unknown = [task for task in settings.tasks if not manager.match_tasks([task])]
    if unknown:
        raise ParameterError(f"lm-eval has no task {', '.join(unknown)}: lm-eval ls tasks lists them")
    found = lm_eval.simple_evaluate(
        model=harness_model(model, name=name, bos=bos, seed=settings.seed),
        tasks=list(settings.tasks),
        task_manager=manager,
        num_fewshot=settings.num_fewshot,
        limit=settings.limit,
        apply_chat_template=settings.apply_chat_template,
        fewshot_as_multiturn=settings.fewshot_as_multiturn and settings.apply_chat_template,
        system_instruction=settings.system_instruction,
        bootstrap_iters=settings.bootstrap_iters,
        fewshot_random_seed=settings.seed,
    )
    assert found is not None
    return found


def tables(results: Mapping[str, Any]) -> str:
    """Returns lm-eval's own tables of its results."""
    make: Any = library("lm_eval.utils").make_table
    found = [make(results), *([make(results, "groups")] if results.get("groups") else [])]
    return "\n".join(found)


def harness_model(model: LLM, *, name: str = "default", bos: bool | None = None, seed: int = 0) -> Any:
    """Returns an `lm_eval.api.model.LM` that asks an open model, for `lm_eval.simple_evaluate(model=...)`.

    Raises `ParameterError` for an encoder, and `DecoderyError` without lm-eval.
    """
    base: Any = library("lm_eval.api.model").LM
    if model.is_encoder:
        raise ParameterError(f"{name} is an encoder, and lm-eval asks a model that writes texts: use mteb")
    subject = Subject(model, name=name, bos=bos)
    answers = HarnessRequests(subject, seed=seed)

    class HarnessModel(base):  # type: ignore[misc]
        """Answers the requests of lm-eval."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """Returns the log-probability of each continuation, and True if it is the greedy one."""
            return answers.loglikelihood(_asked(requests), self._kept("loglikelihood"))

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """Returns the log-probability of each whole text."""
            return answers.loglikelihood_rolling(_asked(requests), self._kept("loglikelihood_rolling"))

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """Returns the text after each context."""
            return answers.generate_until(_asked(requests), self._kept("generate_until"))

        def _kept(self, method: str) -> Ready:
            return lambda asked, result: self.cache_hook.add_partial(method, asked.arguments, result)

        def apply_chat_template(
            self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
        ) -> str:
            """Returns a conversation in the model's template, ready for a reply or for more of the last."""
            more = {} if add_generation_prompt else {"continue_final_message": True}
            return model.intake.chat_text(list(chat_history), special_in_content=True, **more)

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            """Returns a template by its name, or the model's default one."""
            if chat_template is False or chat_template is None:
                return None
            wanted = chat_template if isinstance(chat_template, str) else "default"
            if wanted not in model.tokenizer.chat_templates:
                raise ParameterError(f"the model has no chat template {wanted}")
            return model.tokenizer.chat_templates[wanted]

        @property
        def tokenizer_name(self) -> str:
            """Returns a name that no other model has."""
            return f"decodery-{subject.identity['files'][:16]}"

        def get_model_info(self) -> dict[str, Any]:
            """Returns all of the model on which its answers depend."""
            return {"model_name": name, **subject.identity, "bos": subject.renderer.describe_bos()}

    return HarnessModel()


def library(module: str) -> Any:
    """Returns a module of lm-eval. Raises `DecoderyError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DecoderyError(f'lm-eval is needed: pip install "decodery[harness]" ({error})') from None


def _asked(requests: Sequence[Any]) -> list[Asked]:
    return [Asked(one.args, f"task {one.task_name}, document {one.doc_id}") for one in requests]
