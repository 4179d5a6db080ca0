"""What an experiment's runs leave, and what follows from it: any figure can be made again without a model."""
