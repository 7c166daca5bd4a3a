# The gateway as an image: nothing but Python, the locked dependencies and the package.
# Pin the base by digest where you build for production:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... .
ARG PYTHON_IMAGE=python:3.13-slim

# The wheel, made by a locked build backend.
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# The environment. Wheels only: no stage has a compiler. Bytecode is compiled here,
# because the final root filesystem may be read-only.
FROM ${PYTHON_IMAGE} AS environment
RUN python -m venv --without-pip /opt/gateway
COPY requirements.lock ./
RUN pip --python /opt/gateway/bin/python install --no-cache-dir --compile \
    --require-hashes --only-binary=:all: -r requirements.lock
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/gateway/bin/python install --no-cache-dir --compile \
    --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="auth-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1
COPY --from=environment /opt/gateway /opt/gateway

# gateway.toml and policies/ are mounted here; `serve` and `health` read it by default.
WORKDIR /etc/gateway

# No name in /etc/passwd is needed: Kubernetes' runAsNonRoot asks for a number.
USER 65532:65532

EXPOSE 8080 9091
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["gateway", "health"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
