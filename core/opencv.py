"""OpenCV, typed as ``Any``: its wheel carries stubs that strict checking cannot read."""

from importlib import import_module
from typing import Any

cv2: Any = import_module("cv2")

NO_MEMORY: int = cv2.Error.StsNoMem
"""Code of a ``cv2.error`` that says that an allocation failed, not that a picture is odd."""
