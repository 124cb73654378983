"""The command line: starts the roles, keeps them running, talks to a node from a terminal."""
