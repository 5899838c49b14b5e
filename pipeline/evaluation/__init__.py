"""What the test rows say of the models: the only room that may see the test split."""
