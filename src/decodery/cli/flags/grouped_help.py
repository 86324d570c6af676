"""Prints the help of a command with its flags in groups, one for each panel."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

# The panel of flags that name none.
DEFAULT_PANEL = "Options"
# The order of the panels.
PANELS = (
    DEFAULT_PANEL,
    "Output",
    "Length",
    "Sampling",
    "Penalties",
    "Strategy",
    "Grammar",
    "Speculation",
    "Server",
    "Model",
)


class GroupedCommand(TyperCommand):
    """Prints plain help in groups; typer's own groups need another library and draw wide boxes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then the flags of each panel."""
        arguments = []
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                panels[getattr(parameter, "rich_help_panel", None) or DEFAULT_PANEL].append(record)
        for title, records in {"Arguments": arguments, **panels}.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=26)
