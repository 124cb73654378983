"""Other clients and runtimes through clients/scenarios.json; outside `make check`."""
