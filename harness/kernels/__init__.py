"""Native kernels for a CPU: layers and their gradients, likelihoods, Adam, noise, products and convolutions of traced steps.

The code is in native/, `library` finds or compiles it, `chain` and `forward` run affine maps by it, `operators` gives it to torch.
In come tensors, out come tensors; without a library torch's operations are used. Models, optimizer states and studies must not
enter here.
"""
