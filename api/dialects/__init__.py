"""What clients speak. A dialect reads its requests, and folds the log into its own bytes."""
