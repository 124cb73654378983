#!/bin/sh
# Builds llama.cpp's llama-server from the sources that the source package of llama-cpp-python carries.
# Usage: build_llama_server.sh PYTHON CACHE. Prints the path of the program. The second run only prints.
# The build takes about 16 CPU minutes. It needs cmake, a C++ compiler and 500 MB in CACHE.
set -eu
python=$1
cache=$2
version=0.3.36

folder="$cache/llama.cpp-$version"
program="$folder/build/bin/llama-server"
if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi
for tool in cmake c++ tar; do
    command -v "$tool" >/dev/null || { echo "build_llama_server.sh needs $tool on PATH" >&2; exit 2; }
done

mkdir -p "$folder"
if [ ! -f "$folder/CMakeLists.txt" ]; then
    # pip asks the package's build system for its metadata, which needs cmake's Python parts, and no compiler.
    "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python \
        --dest "$folder/download" "llama-cpp-python==$version" >&2
    tar -xzf "$folder/download/llama_cpp_python-$version.tar.gz" -C "$folder" --strip-components 3 \
        "llama_cpp_python-$version/vendor/llama.cpp"
    rm -r "$folder/download"
fi

# The compiler's "native" detection picks instructions that some virtual machines then refuse (SIGILL).
# These flags hold for x86 processors since 2013. Other processors use their baseline.
flags=""
if [ "$(uname -m)" = x86_64 ]; then
    flags="-DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF"
fi
# shellcheck disable=SC2086  # the flags are words
nice -n 15 cmake -S "$folder" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF $flags \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF >&2
nice -n 15 cmake --build "$folder/build" --target llama-server -j "${BUILD_JOBS:-2}" >&2
echo "$program"
