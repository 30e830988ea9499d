"""Graphs in ONNX Runtime, on the CPU: how all of them are opened."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def import_onnxruntime() -> Any:
    """Import ONNX Runtime so that it sends nothing.

    Some seconds after a session opens it looks up a host of its maker to send usage events to.
    ``disable_telemetry_events`` does not stop that; this variable does, if it is set before.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251
    import onnxruntime

    return onnxruntime


def open_session(graph: Path, cores: int) -> "InferenceSession":
    """Load a graph.

    Args:
        graph: The ``.onnx`` file, with what it refers to beside it.
        cores: Threads of computation; more than were granted collapse the speed.

    Raises:
        Exception: What the runtime raises; ``core.errors.is_out_of_memory`` tells whether it is
            want of memory.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it would take one block for all activations together
    # Threads that wait for work by spinning are a fifth faster alone, and a third slower where
    # others want the cores, too, from whom they take a fifth.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised, and not written as well
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
