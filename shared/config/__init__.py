"""The configuration file's models, how it is loaded and checked, and what the environment adds.

`load` reads `orchestration_config.json`; `shared.config.environment` reads the variables; `shared.config.providers`
says where each role's calls go. A wrong file raises `ConfigInvalid` with every problem in it.
"""

from shared.config.configuration import Configuration
from shared.config.errors import ConfigInvalid, Problem
from shared.config.loading import Loaded, find, load, parse
from shared.config.roles import Model, ModelParameters
from shared.config.templates import Parameter, Template

__all__ = [
    "ConfigInvalid",
    "Configuration",
    "Loaded",
    "Model",
    "ModelParameters",
    "Parameter",
    "Problem",
    "Template",
    "find",
    "load",
    "parse",
]
