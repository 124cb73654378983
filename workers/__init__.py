"""Workers: take prompts from the queue and stream answers into their logs."""
