"""What clients speak: each dialect is a deterministic fold of the log into bytes."""
