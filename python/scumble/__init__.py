"""scumble for Python: the program, and its edits for diffusers pipelines.

`run` runs the program; `load_edit` applies an edit file to a pipeline of diffusers, and `unload_edit` takes it away
again. This module needs nothing but Python; `load_edit` needs torch and safetensors.
"""

from ._binary import find_binary
from ._edit import load_edit, unload_edit
from ._error import Error
from ._run import Result, run

__all__ = ["Error", "Result", "find_binary", "load_edit", "run", "unload_edit"]
