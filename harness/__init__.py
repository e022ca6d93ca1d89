"""Compare variational autoencoders by reconstruction loss, activation or whatever a study varies, with numbers one can trust."""
