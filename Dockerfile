# The service on one machine. Packages come from pip's configured index; to take torch's CPU build
# from another one, pass --build-arg PIP_EXTRA_INDEX_URL=… and --build-arg TORCH=torch==2.13.0+cpu.
FROM python:3.12-slim-bookworm AS build

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG TORCH=torch
ARG EXTRAS=service
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/eqr
ENV PATH=/opt/eqr/bin:$PATH
COPY constraints.txt ./
RUN pip install --constraint constraints.txt setuptools wheel "$TORCH"
COPY pyproject.toml README.md ./
COPY eqr_core ./eqr_core
COPY service ./service
RUN pip install --constraint constraints.txt --no-build-isolation ".[$EXTRAS]"

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 10001 eqr
COPY --from=build /opt/eqr /opt/eqr
ENV PATH=/opt/eqr/bin:$PATH EQR_HOST=0.0.0.0 RAY_USAGE_STATS_ENABLED=0
USER 10001
WORKDIR /home/eqr
EXPOSE 8000 9000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('EQR_PORT', '8000') + '/health/ready', timeout=4)"]
# SIGTERM drains: no new solves, running ones end, at most EQR_DRAIN_SECONDS.
STOPSIGNAL SIGTERM
CMD ["eqr", "serve"]
