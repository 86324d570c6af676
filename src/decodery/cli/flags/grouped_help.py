"""A command whose help lists its flags under the headings of their panels."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

OWN = "Options"
# Panels come in this order.
PANELS = (
    OWN,
    "Output",
    "Length",
    "Sampling",
    "Penalties",
    "Strategy",
    "Grammar",
    "Speculation",
    "Model",
)


class GroupedCommand(TyperCommand):
    """Plain help in groups; typer's own groups take another library and wide boxes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then each panel's flags."""
        arguments = []
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                panels[getattr(parameter, "rich_help_panel", None) or OWN].append(record)
        for title, records in {"Arguments": arguments, **panels}.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=26)
