# The service for CPUs and NVIDIA GPUs:
#   docker build --tag eqr:0.1.0 --build-arg TORCH_INDEX=URL .
# TORCH_INDEX is the package index of the torch build that is wanted, as PyTorch's installation page
# names them: for CPUs (a fifth of the size) or for one version of CUDA. Without it torch comes, as
# all else does, from pip's configured index (PIP_INDEX_URL for another), usually with CUDA.
# torch's CUDA builds bring CUDA's libraries along, so both share one base; the host brings the driver.
FROM python:3.12-slim-bookworm AS build

ARG PIP_INDEX_URL
ARG TORCH_INDEX
# Extras of pyproject.toml: "service,train" for eqr train --ray.
ARG EXTRAS=service
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/eqr
ENV PATH=/opt/eqr/bin:$PATH
COPY constraints.txt ./
# Alone and without what it needs: no other package may come from that index.
RUN pip install --constraint constraints.txt --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --constraint constraints.txt setuptools wheel
COPY pyproject.toml README.md LICENSE ./
COPY eqr_core ./eqr_core
COPY service ./service
RUN pip install --constraint constraints.txt --no-build-isolation ".[$EXTRAS]"

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="eqr" \
      org.opencontainers.image.description="Equilibrium reasoning as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
# g++ compiles the native kernels for the processor they run on, once, into ~/.cache/eqr; tini reaps
# what Ray's processes leave behind and hands signals on. Versions follow the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 eqr \
    && echo "PATH=/opt/eqr/bin:\$PATH" > /etc/profile.d/eqr.sh
COPY --from=build /opt/eqr /opt/eqr
# The profile above is for login shells, which KubeRay may start; this is for all else.
ENV PATH=/opt/eqr/bin:$PATH \
    EQR_HOST=0.0.0.0 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
ENV HOME=/home/eqr
WORKDIR /home/eqr
# A volume that is mounted here belongs to the user, as the folder does.
RUN mkdir -p /home/eqr/.local/state/eqr /home/eqr/.cache/eqr
EXPOSE 8000 9000
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('EQR_PORT', '8000') + '/health/ready', timeout=4)"]
# SIGTERM drains: no new solves, running ones end, at most EQR_DRAIN_SECONDS.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]
CMD ["eqr", "serve"]
