"""The shipped studies: one file, one question. Installed, this folder is the package `harness.studies`.

In come specs and studies as values from `harness.spec` and `harness.study`; each file assigns its own to STUDY. Nothing is run
here, and neither torch nor any other room may enter, so that a study loads at once.
"""
