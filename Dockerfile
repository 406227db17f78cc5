# syntax=docker/dockerfile:1
#
# docker build -t gateway .
# docker run -p 8080:8080 -v ./routes.yaml:/etc/gateway/routes.yaml:ro gateway
#
# The first stage builds; the second has Python, the installed package and nothing to build with.

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scripts/locks/run.txt scripts/locks/run.txt
COPY gateway/ gateway/
# First wheels of everything, each with the content that the lock names, then an install from nothing
# but them. The environment gets no pip of its own.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --require-hashes --wheel-dir /wheels --requirement scripts/locks/run.txt \
 && pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/gateway \
 && pip --python /opt/gateway/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
 && /opt/gateway/bin/gateway version

FROM python:${PYTHON_VERSION}-slim AS runtime
LABEL org.opencontainers.image.title="gateway" \
      org.opencontainers.image.description="An API gateway for services in Consul" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, not a name: Kubernetes can check runAsNonRoot only against a number.
RUN pip uninstall --yes --root-user-action=ignore pip \
 && install -d -o 65532 -g 65532 /var/lib/gateway \
 && install -d /etc/gateway
COPY --from=build /opt/gateway /opt/gateway

# Everything the program writes is the last known state of the services, so the root may be read-only.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_CONFIG=/etc/gateway/routes.yaml \
    GATEWAY_BIND=0.0.0.0:8080 \
    GATEWAY_ADMIN=0.0.0.0:9901 \
    GATEWAY_STATE_DIR=/var/lib/gateway
VOLUME ["/var/lib/gateway"]
EXPOSE 8080 9901
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['GATEWAY_ADMIN'].rpartition(':')[2]), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["gateway"]
CMD ["run"]
