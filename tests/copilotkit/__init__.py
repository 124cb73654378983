"""CopilotKit's chat in Chromium, against two nodes: `make copilotkit`. Not a part of CI."""
