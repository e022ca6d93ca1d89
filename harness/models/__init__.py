"""Models as functions of tensors: likelihoods, activations, networks, the VAE that joins them, and the objectives it is trained by.

In come a `TrialSpec` and tensors; out come modules, log-probabilities and bounds in nats. Every model has a leading dimension of
lanes, one per trial. Devices, seeds, data sets and files must not enter here.
"""
