"""What each technique is worth on a task: trained with and without it, from the same seeds."""
