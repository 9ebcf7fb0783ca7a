"""Types, protocols, arithmetic of architectures, run folder, seeds, estimators, errors. No torch."""
