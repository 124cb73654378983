"""Jobs: what happens in the background, on arq. May use the pure parts of api."""
