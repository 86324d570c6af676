"""Chooses among a model's chat templates."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.text.chat.faults import fault

DEFAULT = "default"
WITH_TOOLS = "tool_use"


def chosen_template(templates: Mapping[str, str], asked: str | None, *, tools: bool) -> str:
    """Returns the template for a conversation, of a model with these named templates.

    `asked` is the name of one, or a template's own text. Without it, the one for tools is chosen if there are
    tools, else the default. Raises `RequestError` that lists the names.
    """
    names = ", ".join(sorted(templates))
    if asked is not None:
        found = templates.get(asked, asked)
        if asked not in templates and "{{" not in asked and "{%" not in asked:
            known = f"the model has {names}" if templates else "the model has none"
            raise fault(f"there is no chat template named {asked[:80]!r}: {known}", "chat_template")
        return found
    if tools and WITH_TOOLS in templates:
        return templates[WITH_TOOLS]
    if DEFAULT in templates:
        return templates[DEFAULT]
    if templates:
        raise fault(
            f"none of the model's chat templates is the default: choose one of {names}", "chat_template"
        )
    raise fault(
        "this model has no chat template: give it a plain prompt, or a template of your own", "chat_template"
    )
