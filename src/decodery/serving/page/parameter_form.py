"""Describes the parameters of generation for the page's form: groups, help texts, types and bounds."""

from __future__ import annotations

from typing import Any

from decodery.decoding.request.panels import PANELS
from decodery.decoding.request.plain import FORMS
from decodery.serving.schemas.values import objects, parameters

# The headings of the fields that hold objects.
HEADINGS = {
    "strategy": "Strategy",
    "grammar": "Grammar",
    "speculate": "Speculation",
    "watermark": "Watermark",
}


def parameter_form() -> dict[str, Any]:
    """Returns the `panels` with the names of their fields, and JSON schemas.

    `parameters` has the schema of each field, and `objects` those of the objects that a field may hold, by
    field and type.
    """
    schemas, of_classes = parameters(), objects()
    of_fields = {
        name: {kind_name: of_classes[kind.__name__] for kind_name, kind in form.kinds.items()}
        for name, form in FORMS.items()
    }
    panels = {**{HEADINGS[name]: [name] for name in FORMS}, **PANELS}
    return {"panels": panels, "parameters": schemas, "objects": of_fields}
