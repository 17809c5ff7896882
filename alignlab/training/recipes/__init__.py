"""Training from a recipe, one YAML file, with TRL's trainers and our PPOTrainer."""
