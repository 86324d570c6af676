"""Puts the learner's pages into the package, and the native kernels where there is a C++ compiler.

`DECODERY_NATIVE=0` leaves the kernels out, `DECODERY_NATIVE=1` makes a failure to build them an error.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent / "native"))
from make import TARGET, BuildError, build, compiler, wheel_tag


class PackageHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable installation reads them where they are.
        if version != "editable":
            build_data["force_include"][str(Path(self.root, "docs", "learn"))] = "decodery/learn_pages"
        self._add_kernels(version, build_data)

    def _add_kernels(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("DECODERY_NATIVE", "")
        if wanted == "0":
            return
        try:
            if version == "editable":
                build()
                return
            self.folder = tempfile.TemporaryDirectory()
            built = build(Path(self.folder.name) / TARGET.name)
        except (BuildError, OSError) as error:
            if wanted == "1":
                raise
            self.app.display_warning(f"decodery is built without its native kernels: {error}")
            return
        build_data["force_include"][str(built)] = f"decodery/kernels/native/{TARGET.name}"
        build_data["pure_python"] = False
        build_data["tag"] = wheel_tag(compiler())
