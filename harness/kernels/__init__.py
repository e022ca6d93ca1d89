"""Compiled code of our own for a CPU: matrix products that torch's BLAS takes longer for.

In come tensors, out come tensors; where a kernel cannot be compiled or would not be faster, torch's operations are used. Nothing
here knows a model, an optimizer's state or a study.
"""
