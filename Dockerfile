# One image for every role: `docker run tailrace api`, `worker` or `jobs`.
# By digest, because a tag may point to another image later. docs/security.md says how to renew it.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# In a read-only container only uploads and batches need a place that can be written to: mount one at
# TAILRACE_DATA_DIR, or set TAILRACE_FILES_URL.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/tailrace \
    TAILRACE_DATA_DIR=/var/lib/tailrace

WORKDIR /srv/tailrace

# The dependencies come first, because they change less often than the code.
COPY deploy/requirements.lock deploy/requirements.lock
RUN pip install --no-cache-dir --require-hashes -r deploy/requirements.lock

COPY api api
COPY workers workers
COPY shared shared
COPY jobs jobs
COPY cli cli
COPY clients/python/src/tailrace_client tailrace_client
RUN python -m compileall -q api workers shared jobs cli tailrace_client \
    && useradd --system --no-create-home tailrace \
    && install -d -o tailrace -m 0700 /var/lib/tailrace
USER tailrace

EXPOSE 8000
# SIGTERM drains. -P: Python looks for our packages only in PYTHONPATH.
ENTRYPOINT ["python", "-P", "-m", "cli.main"]
CMD ["--help"]
