"""The protocols of clients. A dialect reads requests, and folds the log into bytes of its own."""
