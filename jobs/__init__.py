"""The jobs role: background work on arq. May use the pure parts of api."""
