"""VAE benchmark harness: reconstruction losses and activations swapped by name, compared with numbers one can trust."""
