"""Workers take prompts from the queue and write the answers to their logs."""
