# syntax=docker/dockerfile:1
# ztproxy as a container: no build tools, no shell needed, not root, read-only root file system.
#   docker build -t ztproxy .
#   docker run -v ./config:/etc/ztproxy:ro -v ztproxy-state:/var/lib/ztproxy -p 443:8443 ztproxy
# The same image is the connector: docs/how-to/reach-an-application-behind-nat.md
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY ztproxy ztproxy
COPY bench bench
# the hot path is compiled where everything it is built with is there (by what bench.training does with it), and goes
# into the image as a wheel
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --only-binary :all: --no-binary ztproxy ".[compile]" \
    && ZTPROXY_COMPILE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .
RUN python -m venv /opt/ztproxy \
    && /opt/ztproxy/bin/pip install --only-binary :all: /wheel/*.whl \
    && /opt/ztproxy/bin/pip uninstall --yes pip \
    && /opt/ztproxy/bin/python -m compileall -q /opt/ztproxy/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="ztproxy" \
      org.opencontainers.image.description="Zero trust remote access reverse proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
# pip of the base image is not needed any more, and what is not there has no holes
RUN python -m pip uninstall --yes pip \
    && groupadd --system --gid 10001 ztproxy \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/ztproxy --shell /usr/sbin/nologin ztproxy \
    && install --directory --owner ztproxy --group ztproxy --mode 0700 /var/lib/ztproxy /var/lib/ztproxy-connector
COPY --from=build /opt/ztproxy /opt/ztproxy
ENV PATH=/opt/ztproxy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME ["/var/lib/ztproxy"]
EXPOSE 8443 9464
STOPSIGNAL SIGTERM
# the port of `telemetry.listen`
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
ENTRYPOINT ["ztproxy"]
CMD ["run"]
