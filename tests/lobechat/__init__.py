"""LobeChat's own application in Chromium, against a node: `make lobechat`. Not a part of CI."""
