"""OpenCV, typed as ``Any``: its wheel carries stubs that strict checking cannot read."""

from importlib import import_module
from typing import Any

cv2: Any = import_module("cv2")
