"""How the package is built: a wheel by scikit-build-core, with the native libraries; an editable install by setuptools.

An editable install of scikit-build-core puts its finder before PYTHONPATH, so that another revision of the package, which the gate
times beside this one, could not be imported.
"""

from scikit_build_core.build import (
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)
from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
]
