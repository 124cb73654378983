"""The way of an answer into its log: event ids, shared pipelines, counts."""
