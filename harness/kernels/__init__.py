"""The harness's own compiled kernels for a CPU: matrix products and convolutions for which torch's own take longer.

In come tensors, out come tensors; where a kernel cannot be compiled or would not be faster, torch's operations are used. Models,
optimizer states and studies must not enter here.
"""
