"""The packages of an editable install: those of harness/, and the folder studies/ as `harness.studies`. See build_backend.py."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["harness*"]), "harness.studies"], package_dir={"harness.studies": "studies"})
