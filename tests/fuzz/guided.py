"""One target under atheris, led by the coverage of the gateway's code.

    python -m tests.fuzz.guided TARGET [options of libFuzzer] [corpus]

Started by `python -m tests.fuzz`, in an environment that has atheris.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import atheris

with atheris.instrument_imports(include=["gateway"]):
    TARGETS = import_module("tests.fuzz.targets").TARGETS

if __name__ == "__main__":
    logging.disable(logging.INFO)
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name].fuzz)
    atheris.Fuzz()
