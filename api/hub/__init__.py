"""The fan-out of one API node: one copy of each log, any number of readers."""
