"""Compare variational autoencoders by reconstruction loss, activation or any other field of a trial, with trustworthy numbers."""
