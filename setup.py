"""The packages: those of harness/, and the folder studies/ as `harness.studies`. All else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["harness*"]), "harness.studies"], package_dir={"harness.studies": "studies"})
