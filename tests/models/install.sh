#!/bin/sh
# Installs the model servers that tests/models tries, outside the tree: install.sh PYTHON CACHE.
# The first run takes about 16 CPU minutes for llama.cpp and 800 MB for LiteLLM; the next ones nothing.
# A part that cannot be installed is left out of the tests, with a line.
set -eu
here=$(dirname "$0")
python=$1
cache=$2
litellm=1.108.7

mkdir -p "$cache"
"$here/build_llama_server.sh" "$python" "$cache" > "$cache/llama-server.path" \
    || echo "install.sh: no llama-server: its tests are left out" >&2
if [ ! -x "$cache/litellm-$litellm/bin/litellm" ]; then
    "$python" -m venv "$cache/litellm-$litellm" \
        && "$cache/litellm-$litellm/bin/python" -m pip install --quiet "litellm[proxy]==$litellm" \
        || echo "install.sh: no LiteLLM: its tests are left out" >&2
fi
echo "$cache/litellm-$litellm/bin/litellm" > "$cache/litellm.path"
